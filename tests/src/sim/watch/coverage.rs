//! What a campaign has met: an invariant that was never in danger is not proved.

use serde::{Deserialize, Serialize};
use skep_fleet::Applied;
use skep_protocol::agent::AgentChange;
use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandOutcome};
use skep_protocol::journal::JournalWrite;
use skep_protocol::outcome::NotDone;
use skep_protocol::refusal::{Refusal, RequestRefusal};
use skep_protocol::settled::Settled;
use skep_protocol::task::{ReclaimCause, TaskChange};
use skep_testnet::site::station::Refused;

use super::Seen;
use crate::sim::plan::FaultKind;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often each event happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Coverage {
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// The names of events that never happened.
            pub fn missing(&self) -> Vec<&'static str> {
                let mut missing = Vec::new();
                $(if self.$name == 0 { missing.push(stringify!($name)); })*
                missing
            }
        }
    };
}

counters! {
    /// Messages between hosts.
    messages,
    /// Messages that were lost.
    lost,
    /// Messages that came twice.
    doubled,
    /// Leaders elected.
    elections,
    /// Nodes that ended without warning.
    crashes,
    /// Whole quorums that ended without warning.
    quorum_crashes,
    /// Machines that started anew.
    reboots,
    /// Robots' software that ended without warning.
    robot_crashes,
    /// Robots whose software was started on another host while the run before it went on.
    robot_moves,
    /// Nodes and robots that were suspended.
    suspensions,
    /// Networks that were cut in two.
    cuts,
    /// Cuts in one direction.
    one_way_cuts,
    /// Cuts between two voters while other hosts hear both.
    pair_cuts,
    /// Networks that lost and doubled messages.
    lossy,
    /// Networks that were slow and reordered messages.
    slow,
    /// Links that were thin for most of a run.
    thin_links,
    /// Sites of which a part was far for the whole run.
    far_sites,
    /// Snapshots that a voter took from its leader.
    snapshots_installed,
    /// New leaders that knew no clock.
    clocks_lost,
    /// Tasks assigned or claimed.
    claims,
    /// Claims given anew after an earlier one had ended.
    reassignments,
    /// Leases that ended in the log.
    expiries,
    /// Claims taken back for want of progress.
    stale_claims,
    /// Claims that were given back.
    releases,
    /// Tasks that were done.
    completions,
    /// Tasks that failed too often.
    dead_letters,
    /// Tasks that expired.
    expired_tasks,
    /// Tasks that were cancelled.
    cancellations,
    /// Answers that said: done.
    done,
    /// Answers that said: definitely not done.
    not_done,
    /// Answers that said: unknown.
    unknown,
    /// Requests that came after their deadline.
    too_late,
    /// Effects that the station refused as stale.
    station_stale,
    /// Effects that the station refused since they were done already.
    station_duplicate,
    /// Looks at a lease that had ended.
    stood_still,
    /// Looks at a claim that was lost.
    claims_lost,
    /// Linearizable reads.
    reads,
    /// Commands that were accepted.
    commands,
    /// Waves of commands that were released.
    waves,
    /// Reports of how far a command had come.
    commands_progressed,
    /// Commands that robots began.
    commands_begun,
    /// Go-aheads that came too late.
    commands_too_late,
    /// Deliveries that succeeded.
    commands_succeeded,
    /// Deliveries that failed.
    commands_failed,
    /// Deliveries that the robot rejected.
    commands_rejected,
    /// Deliveries that were not started in time.
    commands_expired,
    /// Deliveries that were cancelled.
    commands_cancelled,
    /// Deliveries whose place another command took.
    commands_superseded,
    /// Deliveries whose outcome is unknown.
    commands_in_doubt,
    /// Journals that were lost.
    journals_lost,
    /// Runs in which a host lied that does not vote.
    stolen_robots,
    /// Runs in which a voter lied.
    lying_voters,
    /// Questions that a liar answered, or was to answer.
    lies,
    /// Commands that a liar delivered again.
    commands_delivered_again,
    /// Clocks that a liar turned back.
    clocks_turned_back,
    /// Entries that a liar wrote as a leader, and that no operator had signed.
    forged_entries,
    /// Robots that a leader told to go back to places that exist, after a liar had delivered under others.
    places_taken_back,
    /// Journals that recorded, in runs with a liar, that the clerk is revoked.
    revocations_kept,
    /// Journals that gave their node the time that the shard's clock has surely reached.
    floors_found,
}

impl Coverage {
    pub(super) fn count_fault(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::CrashQuorum => self.quorum_crashes += 1,
            FaultKind::Reboot { .. } => self.reboots += 1,
            FaultKind::Suspend { .. } | FaultKind::SuspendLeader | FaultKind::SuspendRobots { .. } => {
                self.suspensions += 1;
            }
            FaultKind::Cut { .. } => self.cuts += 1,
            FaultKind::OneWay { .. } => self.one_way_cuts += 1,
            FaultKind::Pair { .. } => self.pair_cuts += 1,
            FaultKind::Lossy { .. } => self.lossy += 1,
            FaultKind::Slow { .. } => self.slow += 1,
            FaultKind::Thin { .. } => self.thin_links += 1,
            // These are counted where they end a process, or start one.
            FaultKind::Crash { .. }
            | FaultKind::CrashLeader
            | FaultKind::CrashRobot { .. }
            | FaultKind::MoveRobot { .. } => {}
        }
    }

    pub(super) fn see(&mut self, seen: &Seen) {
        match seen {
            Seen::Elected { .. } => self.elections += 1,
            Seen::Ended { settled, in_doubt, .. } => self.end(settled, *in_doubt),
            Seen::ReadEnded { .. } => self.reads += 1,
            Seen::FloorFound { .. } => self.floors_found += 1,
            Seen::Kept { write: JournalWrite::Stated { .. }, .. } => self.revocations_kept += 1,
            Seen::Acted { .. } => self.commands_begun += 1,
            Seen::Attempted { refused: Some(Refused::Stale), .. } => self.station_stale += 1,
            Seen::Attempted { refused: Some(Refused::Duplicate), .. } => self.station_duplicate += 1,
            _ => {}
        }
    }

    fn end(&mut self, settled: &Settled, in_doubt: bool) {
        match settled {
            Settled::Done { .. } => self.done += 1,
            Settled::NotDone(NotDone::Refused(refusal)) => {
                self.too_late += u64::from(matches!(refusal, Refusal::Request(RequestRefusal::Expired { .. })));
                match in_doubt && refusal.is_silent_about_earlier() {
                    true => self.unknown += 1,
                    false => self.not_done += 1,
                }
            }
            _ => self.unknown += 1,
        }
    }

    fn note_outcome(&mut self, outcome: &CommandOutcome) {
        let counter = match outcome {
            CommandOutcome::Succeeded { .. } => &mut self.commands_succeeded,
            CommandOutcome::Failed { .. } => &mut self.commands_failed,
            CommandOutcome::Rejected { .. } => &mut self.commands_rejected,
            CommandOutcome::Expired => &mut self.commands_expired,
            CommandOutcome::Cancelled => &mut self.commands_cancelled,
            CommandOutcome::Superseded => &mut self.commands_superseded,
            CommandOutcome::Indeterminate { .. } => &mut self.commands_in_doubt,
        };
        *counter += 1;
    }

    /// Counts the changes of an entry, once.
    pub(super) fn note_changes(&mut self, applied: &Applied) {
        for change in &applied.changes {
            match &change.what {
                ChangeKind::Task { change, .. } => self.note_task(change),
                ChangeKind::Agent { change: AgentChange::Detached { expired: true, .. }, .. } => self.expiries += 1,
                ChangeKind::Command { change, .. } => self.note_command(change),
                _ => {}
            }
        }
    }

    fn note_task(&mut self, change: &TaskChange) {
        match change {
            TaskChange::Claimed { epoch, .. } => {
                self.claims += 1;
                self.reassignments += u64::from(epoch.0 > 1);
            }
            TaskChange::Reclaimed { cause: ReclaimCause::Stale, .. } => self.stale_claims += 1,
            TaskChange::Reclaimed { cause: ReclaimCause::Released, .. } => self.releases += 1,
            TaskChange::Completed { .. } => self.completions += 1,
            TaskChange::DeadLettered { .. } => self.dead_letters += 1,
            TaskChange::Expired => self.expired_tasks += 1,
            TaskChange::Cancelled { .. } => self.cancellations += 1,
            _ => {}
        }
    }

    fn note_command(&mut self, change: &CommandChange) {
        match change {
            CommandChange::Accepted { .. } => self.commands += 1,
            CommandChange::Released { .. } => self.waves += 1,
            CommandChange::DeliveryReported { progress: Some(_), .. } => self.commands_progressed += 1,
            CommandChange::DeliveryEnded { outcome, .. } => self.note_outcome(outcome),
            _ => {}
        }
    }
}
