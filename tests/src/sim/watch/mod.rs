//! What is seen of a run from outside of time, and what must hold of it: a file for each side of an invariant, which is called
//! after what holds; its first line has the id. How to add one is told in `tests/INVARIANTS.md`.

mod at_most_once;
mod authority;
mod coverage;
mod floor;
mod followed;
mod in_order;
mod in_time;
mod linearizable;
mod no_false_answer;
mod no_phantom;
mod nothing_lost;
mod once;
mod one_commander;
mod one_owner;
mod same_log;
mod self_fencing;

use std::collections::{BTreeMap, BTreeSet};

use skep_fleet::{Applied, FleetState, LogPosition};
use skep_protocol::change::ChangeKind;
use skep_protocol::command::CommandChange;
use skep_protocol::entry::{Entry, Request};
use skep_protocol::ids::{CommandId, RequestId, TaskId};
use skep_protocol::journal::JournalWrite;
use skep_protocol::offer::GoToken;
use skep_protocol::query::QueryReply;
use skep_protocol::settled::Settled;
use skep_protocol::task::TaskChange;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;
use skep_testnet::site::station::{Question, Refused};

use super::plan::{FaultKind, Plan};

pub use coverage::Coverage;

/// Something that was seen.
pub(super) enum Seen<'a> {
    /// A replica applied an entry.
    Applied { host: usize, position: LogPosition, entry: Option<&'a Entry>, applied: &'a Applied, digest: u128 },
    /// A leader wrote an entry, with a stamp of its clock.
    Written { term: u64, index: u64 },
    /// A voter leads a new term.
    Elected { host: usize, term: u64 },
    /// A request was made, from a clock that was read now.
    Invoked { request: &'a Request, valid_ms: u64 },
    /// Whoever made a request has its answer. `in_doubt`: an earlier one was unknown.
    Ended { request: &'a Request, settled: &'a Settled, in_doubt: bool },
    /// A linearizable read began.
    ReadBegun { customer: usize },
    /// It ended.
    ReadEnded { customer: usize, task: TaskId, reply: &'a QueryReply },
    /// A robot looked at its lease and may go on.
    Checked { robot: usize, task: TaskId, epoch: u64 },
    /// A robot began in the world what it was told to do.
    Acted { agent: &'a AgentId, command: CommandId, token: GoToken },
    /// The same: on which host, in which run of its node, when it did and when it asked whether it may, on the host's clock, and
    /// until when the command was valid as it was delivered.
    Began {
        host: usize,
        run: u32,
        boot_ms: u64,
        asked_ms: u64,
        agent: &'a AgentId,
        command: CommandId,
        deadline: LogInstant,
    },
    /// A run of a host's node was told the shard's clock. `taken`: it surely heard it, and did not give the question up before; so is
    /// all that is true. Seen where somebody lies.
    ClockTold { host: usize, run: u32, boot_ms: u64, clock: LogInstant, lie: bool, taken: bool },
    /// A run of a host's node was given a journal, by which the shard's clock has surely come to this.
    FloorFound { host: usize, run: u32, boot_ms: u64, floor: LogInstant },
    /// Something is in the journal of an agent on a host. Seen where somebody lies.
    Kept { host: usize, agent: &'a AgentId, write: &'a JournalWrite },
    /// The disk of a host has lost its journals.
    JournalsLost { host: usize },
    /// A robot acted on the world.
    Attempted { question: &'a Question, refused: Option<Refused> },
    /// The node of the leader ended.
    Fell,
    /// A leader takes requests from now on.
    Leads,
    /// A host tries a piece of work at somebody.
    Tried { host: usize, key: u64 },
    /// A host had an answer that only a leader gives.
    Reached { host: usize },
    /// A robot that had a lease has none, if that is looked at.
    Lapsed { robot: usize, host: usize },
}

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The id of the invariant.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

/// One invariant.
trait Invariant {
    /// Its name in the documentation.
    fn name(&self) -> &'static str;

    /// Takes note of what was seen; what is wrong with it, if anything.
    fn see(&mut self, seen: &Seen, now: u64) -> Result<(), String>;

    /// Looks at every tick.
    fn tick(&mut self, _now: u64) -> Result<(), String> {
        Ok(())
    }

    /// Looks at what every voter holds in the end.
    fn finish(&mut self, _states: &[&FleetState]) -> Result<(), String> {
        Ok(())
    }
}

/// The requests that changed something. That one was refused is on record, and changes nothing.
fn effects(applied: &Applied) -> impl Iterator<Item = RequestId> + '_ {
    let effects = applied.changes.iter().filter(|change| !change.what.is_refusal());
    effects.filter_map(|change| change.request)
}

/// Everything that is watched.
pub(super) struct Watch {
    invariants: Vec<Box<dyn Invariant>>,
    pub(super) coverage: Coverage,
    pub(super) violation: Option<Violation>,
    pub(super) virtual_ms: u64,
    /// The first index that nobody has applied.
    next: u64,
    /// Tasks that have not ended.
    live: BTreeSet<TaskId>,
    /// Commands that have not, and at how many robots; and where commands have ended.
    open: BTreeMap<CommandId, u32>,
    delivered: BTreeSet<(CommandId, AgentId)>,
}

/// What must hold of a run. A host that votes nowhere takes nothing from the others by lying. A voter may withhold what it will, and
/// what it answers to those who ask it is its own word; it cannot make.
fn invariants(plan: &Plan) -> Vec<Box<dyn Invariant>> {
    if plan.liar.is_some_and(|liar| liar.votes) {
        return vec![
            Box::<once::OncePerJournal>::default(),
            Box::<floor::AboveFloor>::default(),
            Box::<same_log::SameLog>::default(),
            Box::<authority::Signed>::default(),
        ];
    }
    let mut all: Vec<Box<dyn Invariant>> = vec![
        Box::<nothing_lost::NothingLost>::default(),
        Box::<no_phantom::NoPhantom>::default(),
        Box::<at_most_once::AtMostOnce>::default(),
        Box::<in_order::InOrder>::default(),
        Box::new(in_time::InTime::new(plan)),
        Box::<one_owner::OneOwner>::default(),
        Box::<one_commander::OneCommander>::default(),
        Box::<self_fencing::SelfFencing>::default(),
        Box::<same_log::SameLog>::default(),
        Box::<linearizable::Linearizable>::default(),
        Box::<no_false_answer::NoFalseAnswer>::default(),
        Box::new(followed::Followed::new(plan)),
    ];
    if plan.liar.is_some() {
        all.push(Box::<authority::Signed>::default());
    }
    all
}

impl Watch {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            invariants: invariants(plan),
            coverage: Coverage::default(),
            violation: None,
            virtual_ms: 0,
            next: 0,
            live: BTreeSet::new(),
            open: BTreeMap::new(),
            delivered: BTreeSet::new(),
        }
    }

    /// Keeps the first violation: the others follow from it.
    pub(super) fn violate(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn each(&mut self, now: u64, mut look: impl FnMut(&mut dyn Invariant) -> Result<(), String>) {
        for at in 0..self.invariants.len() {
            let invariant = self.invariants[at].name();
            if let Err(what) = look(self.invariants[at].as_mut()) {
                self.violate(Violation { invariant, what, at_ms: now });
            }
        }
    }

    pub(super) fn see(&mut self, seen: &Seen, now: u64) {
        if let Seen::Applied { position, applied, .. } = seen
            && position.index == self.next
        {
            self.next += 1;
            self.note_tasks(applied);
        }
        self.coverage.see(seen);
        self.each(now, |invariant| invariant.see(seen, now));
    }

    fn note_tasks(&mut self, applied: &Applied) {
        for change in &applied.changes {
            let ChangeKind::Task { task, change } = &change.what else { continue };
            match change {
                TaskChange::Created { .. } | TaskChange::Requeued { .. } => _ = self.live.insert(*task),
                TaskChange::Completed { .. }
                | TaskChange::DeadLettered { .. }
                | TaskChange::Cancelled { .. }
                | TaskChange::Expired => _ = self.live.remove(task),
                _ => {}
            }
        }
        self.note_commands(applied);
        self.coverage.note_changes(applied);
    }

    fn note_commands(&mut self, applied: &Applied) {
        for change in &applied.changes {
            match &change.what {
                ChangeKind::Command { command, change: CommandChange::Accepted { agents, .. } } => {
                    _ = self.open.insert(*command, *agents);
                }
                // One whose outcome is mended had ended before.
                ChangeKind::Command { command, change: CommandChange::DeliveryEnded { agent, .. } }
                    if self.delivered.insert((*command, agent.clone())) =>
                {
                    let open = self.open.entry(*command).or_default();
                    *open = open.saturating_sub(1);
                }
                _ => {}
            }
        }
        self.open.retain(|_, open| *open > 0);
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.each(now, |invariant| invariant.tick(now));
    }

    pub(super) fn finish(&mut self, states: &[&FleetState], now: u64) {
        self.each(now, |invariant| invariant.finish(states));
    }

    /// How many entries anybody has applied.
    pub(super) fn applied(&self) -> u64 {
        self.next
    }

    /// Commands that have not ended everywhere.
    pub(super) fn live_commands(&self) -> usize {
        self.open.len()
    }

    /// Tasks that have not ended.
    pub(super) fn live_tasks(&self) -> usize {
        self.live.len()
    }

    pub(super) fn count_fault(&mut self, kind: FaultKind) {
        self.coverage.count_fault(kind);
    }
}
