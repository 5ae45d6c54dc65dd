//! What a shard has agreed on: what its entries mean, and the bounds of its state.
//!
//! Replicas of one shard may run different builds of Skep, such as while operators upgrade a site node by node. All of
//! them must apply an entry the same way. So everything that applying reads and that may differ between two builds is
//! in the log: an entry with [`Rules`] says which version of the meaning of entries holds from there on, and by which
//! limits.
//!
//! What a decoder refuses stays with the build: the longest names and texts, which characters they may hold, the
//! largest entry and frame. A change that raises one takes a new fleet version, since an older build stops at what it
//! cannot read. A change that lowers one, or makes the rule for texts stricter, takes a new data format, since a log
//! may hold what an earlier build let in: `tests/texts.rs` has such texts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::CommandClass;
use crate::limits;

/// The versions of the meaning of entries that this Skep can apply.
pub const FLEET_VERSIONS: FleetVersions = FleetVersions { min: 1, max: 1 };

/// Versions of the meaning of entries that one build can apply: all from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetVersions {
    /// The oldest version.
    pub min: u32,
    /// The newest version.
    pub max: u32,
}

impl FleetVersions {
    /// Whether a version is among them.
    pub const fn contains(self, version: u32) -> bool {
        self.min <= version && version <= self.max
    }

    /// The newest version that is in all of these ranges; none if there is none.
    pub fn newest_of_all(all: impl IntoIterator<Item = Self>) -> Option<u32> {
        let common = |a: Self, b: Self| Self { min: a.min.max(b.min), max: a.max.min(b.max) };
        all.into_iter().reduce(common).filter(|common| common.min <= common.max).map(|common| common.max)
    }
}

impl fmt::Display for FleetVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.max) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// What one build of Skep can apply, and the limits that it proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The versions that it can apply.
    pub versions: FleetVersions,
    /// The limits that it proposes, with the next version, to a shard that it leads.
    pub limits: FleetLimits,
}

impl Default for Build {
    /// What this build can apply, and its limits.
    fn default() -> Self {
        Self { versions: FLEET_VERSIONS, limits: FleetLimits::default() }
    }
}

/// What a shard agrees on by an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The fleet version: what entries mean after this one. It only rises.
    pub version: u32,
    /// The limits by which replicas apply them.
    pub limits: FleetLimits,
}

macro_rules! fleet_limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $constant:ident,)*) => {
        /// Bounds that a replica reads when it applies an entry. They are in the log: every replica has the same,
        /// whatever build it is.
        ///
        /// [`default`](Default::default) gives those of this build, from [`limits`]. A shard gets them with its first
        /// entry, or with the next fleet version. A new one goes to the end, with another version of the encoding of an
        /// entry, so that builds that run beside each other, or after each other on one directory, can tell them apart.
        /// That holds from the first release on: before it no build runs beside one of another commit, or on its
        /// directory.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct FleetLimits {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl Default for FleetLimits {
            #[allow(clippy::unnecessary_cast, reason = "the constants are of several types")]
            fn default() -> Self {
                Self { $($name: limits::$constant as $kind,)* }
            }
        }
    };
}

fleet_limits! {
    /// Most tasks that are not terminal.
    live_tasks_max: u64 = LIVE_TASKS_MAX,
    /// Terminal tasks that a shard keeps, and dead letters beside them.
    terminal_tasks_kept: u64 = TERMINAL_TASKS_KEPT,
    /// Bytes that all tasks may take.
    task_bytes_max: u64 = TASK_BYTES_MAX,
    /// Bytes of terminal tasks that a shard keeps.
    terminal_task_bytes_kept: u64 = TERMINAL_TASK_BYTES_KEPT,
    /// Most registered agents.
    agents_max: u64 = AGENTS_MAX,
    /// Most request ids that a shard remembers.
    dedup_ids_max: u64 = DEDUP_IDS_MAX,
    /// How far the clock of a request's first sending may lie ahead of its entry's stamp, in milliseconds.
    clock_lead_ms_max: u64 = CLOCK_LEAD_MS_MAX,
    /// Longest time between a request's first sending and its deadline, in milliseconds.
    request_deadline_ms_max: u64 = REQUEST_DEADLINE_MS_MAX,
    /// Sets of required capabilities among the pending tasks.
    requirements_max: u64 = REQUIREMENTS_MAX,
    /// Pending tasks that a shard looks at for one claim that names none.
    claim_scan_max: u64 = CLAIM_SCAN_MAX,
    /// Failures that a shard keeps with a task.
    failures_kept: u64 = FAILURES_KEPT,
    /// Largest payload and result of a task, in bytes.
    payload_bytes_max: u64 = PAYLOAD_BYTES_MAX,
    /// Largest checkpoint, in bytes.
    checkpoint_bytes_max: u64 = CHECKPOINT_BYTES_MAX,
    /// Most capabilities that one role or one task may name.
    capabilities_max: u64 = CAPABILITIES_MAX,
    /// Most attempts that a task may ask for.
    attempts_max: u32 = ATTEMPTS_MAX,
    /// Longest time that a task may be kept for a former holder, in milliseconds.
    lost_after_ms_max: u64 = LOST_AFTER_MS_MAX,
    /// Most tasks that one agent may hold at a time, whatever its role says.
    concurrent_claims_max: u32 = CONCURRENT_CLAIMS_MAX,
    /// Shortest lease, in milliseconds.
    lease_ttl_ms_min: u64 = LEASE_TTL_MS_MIN,
    /// Longest lease, in milliseconds.
    lease_ttl_ms_max: u64 = LEASE_TTL_MS_MAX,
    /// Most operators who may do something.
    operators_max: u64 = OPERATORS_MAX,
    /// Most grants between an operator and the first one.
    authority_chain_max: u64 = AUTHORITY_CHAIN_MAX,
    /// Most verbs or targets that one grant may name.
    grant_names_max: u64 = GRANT_NAMES_MAX,
    /// How far a statement's number may be above the last one.
    serial_step_max: u64 = SERIAL_STEP_MAX,
    /// What part of its commands of a minute an operator may send at once: one in this many.
    command_burst_share: u64 = COMMAND_BURST_SHARE,
    /// Most commands, ended ones whose deadline has not passed included.
    commands_max: u64 = COMMANDS_MAX,
    /// Most deliveries of all commands.
    deliveries_max: u64 = DELIVERIES_MAX,
    /// Bytes of the arguments of all commands, and of what their agents said.
    command_bytes_max: u64 = COMMAND_BYTES_MAX,
    /// Ended commands that a shard keeps once their deadline has passed.
    ended_commands_kept: u64 = ENDED_COMMANDS_KEPT,
    /// Most routine commands to one agent that have not ended.
    outbox_max: u64 = OUTBOX_MAX,
    /// Most urgent commands to one agent that have not ended.
    outbox_urgent_max: u64 = OUTBOX_URGENT_MAX,
    /// Most groups of one agent.
    groups_max: u64 = GROUPS_MAX,
    /// Largest arguments and result of a command, in bytes.
    args_bytes_max: u64 = ARGS_BYTES_MAX,
    /// Longest time that a command may be valid, in milliseconds.
    command_valid_ms_max: u64 = COMMAND_VALID_MS_MAX,
    /// Most agents in one wave of a command.
    wave_agents_max: u32 = WAVE_AGENTS_MAX,
    /// Shortest time between two waves of a command, in milliseconds.
    wave_every_ms_min: u64 = WAVE_EVERY_MS_MIN,
    /// Longest time between two waves of a command, in milliseconds.
    wave_every_ms_max: u64 = WAVE_EVERY_MS_MAX,
    /// How long after its deadline a shard waits for a command of which it hears nothing, in milliseconds.
    doubt_after_ms: u64 = DOUBT_AFTER_MS,
    /// How long after its deadline a command may be under way, in milliseconds.
    under_way_ms_max: u64 = UNDER_WAY_MS_MAX,
    /// How much further a command must have come for the history to keep it, in thousandths.
    progress_kept_permille: u16 = PROGRESS_KEPT_PERMILLE,
    /// Room for what an agent's software says of how far a command has come, in bytes.
    note_bytes_max: u64 = REASON_BYTES_MAX,
    /// How long a shard keeps an agent that no client registered after its last attachment, in milliseconds.
    agent_ttl_ms: u64 = AGENT_TTL_MS,
    /// Of all request ids that a shard remembers, one in this many may be of requests that were first sent ahead of the
    /// clock.
    dedup_ahead_part: u64 = DEDUP_AHEAD_PART,
    /// How often the first operator may be replaced.
    first_replacements_max: u64 = FIRST_REPLACEMENTS_MAX,
    /// Most operators beside these who may do nothing any more.
    revoked_operators_max: u64 = REVOKED_OPERATORS_MAX,
    /// Places of operators that only those get to whom the first operator grants something.
    operator_places_of_first: u64 = OPERATOR_PLACES_OF_FIRST,
    /// Most operators that a shard remembers of one branch: an operator to whom the first one granted something, and
    /// those below.
    operator_branch_max: u64 = OPERATOR_BRANCH_MAX,
    /// Most members of a site.
    site_members_max: u64 = SITE_MEMBERS_MAX,
    /// Most invitations that a directory remembers.
    site_invitations_max: u64 = SITE_INVITATIONS_MAX,
    /// Most certificates whose serials a directory remembers.
    site_serials_max: u64 = SITE_SERIALS_MAX,
    /// Longest time that an invitation may be open, in milliseconds.
    invitation_life_ms_max: u64 = INVITATION_LIFE_MS_MAX,
    /// Most revocations that wait for voters to leave their office.
    pending_revocations_max: u64 = PENDING_REVOCATIONS_MAX,
    /// By how many epochs a certificate may be ahead of the earliest one that holds.
    certificate_epochs_renewed: u64 = CERTIFICATE_EPOCHS_RENEWED,
    /// Peers whose refusals within a minute a directory audits one by one, for each kind.
    site_refusals_kept: u64 = SITE_REFUSALS_KEPT,
}

impl FleetLimits {
    /// Most commands of a class to one agent that have not ended.
    pub const fn outbox_max_of(&self, class: CommandClass) -> u64 {
        match class {
            CommandClass::Routine => self.outbox_max,
            CommandClass::Urgent => self.outbox_urgent_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(min: u32, max: u32) -> FleetVersions {
        FleetVersions { min, max }
    }

    #[test]
    fn what_all_can_apply_is_the_newest_that_nobody_is_too_old_or_too_new_for() {
        let newest = |all: &[(u32, u32)]| FleetVersions::newest_of_all(all.iter().map(|of| versions(of.0, of.1)));
        assert_eq!(newest(&[]), None);
        assert_eq!(newest(&[(1, 3)]), Some(3));
        assert_eq!(newest(&[(1, 3), (2, 5), (1, 4)]), Some(3));
        assert_eq!(newest(&[(1, 2), (3, 4)]), None);
        assert_eq!((versions(2, 2).to_string(), versions(1, 3).to_string()), ("2".to_owned(), "1 to 3".to_owned()));
    }

    /// What a decoder refuses is not in the log: a build that refuses less writes what another one cannot read.
    #[test]
    fn what_can_be_read_is_part_of_the_fleet_version() {
        let texts = [
            limits::NAME_BYTES_MAX,
            limits::TITLE_BYTES_MAX,
            limits::REASON_BYTES_MAX,
            limits::CONTENT_TYPE_BYTES_MAX,
            limits::TRACEPARENT_BYTES_MAX,
            limits::ENTRY_BYTES_MAX,
        ];
        assert_eq!((FLEET_VERSIONS.max, texts), (1, [64, 256, 512, 128, 64, 1_048_576]));
    }
}
