//! What the disk of a node holds of journals.

use std::collections::{BTreeMap, VecDeque};

use skep_protocol::command::DeliverySeq;
use skep_protocol::ids::{CommandId, JournalId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalState, JournalWrite, Serials};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

/// The journal of one agent, which survives.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    head: JournalHead,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
    clock_floor: LogInstant,
    begun: BTreeMap<CommandId, LogInstant>,
}

impl Journal {
    pub(super) fn new(id: JournalId) -> Self {
        let (entries, begun) = (BTreeMap::new(), BTreeMap::new());
        Self { head: JournalHead::new(id), entries, clock_floor: LogInstant::ZERO, begun }
    }

    /// `serials`: what all journals of the node share.
    pub(super) fn state(&self, serials: &Serials) -> JournalState {
        let (stated, entries) = (serials.clone(), self.entries.values().cloned().collect());
        let (clock_floor, begun) = (self.clock_floor, self.begun.clone());
        JournalState { head: self.head, stated, entries, clock_floor, begun }
    }

    pub(super) fn apply(&mut self, writes: Vec<JournalWrite>, serials: &mut Serials) {
        for write in writes {
            match write {
                JournalWrite::Head(head) => {
                    serials.follow(&self.head, &head);
                    self.head = head;
                }
                JournalWrite::Put(entry) => drop(self.entries.insert(entry.seq, entry)),
                JournalWrite::Remove(seq) => drop(self.entries.remove(&seq)),
                JournalWrite::Step(step) => {
                    if let Some(entry) = self.entries.get_mut(&step.seq) {
                        entry.take(step);
                    }
                }
                JournalWrite::Begun { command, deadline } => drop(self.begun.insert(command, deadline)),
                JournalWrite::ClockFloor(floor) => {
                    self.clock_floor = self.clock_floor.max(floor);
                    self.begun.retain(|_, deadline| *deadline > floor);
                }
                JournalWrite::Stated { operator, serial } => serials.raise(&self.head, operator, serial),
                // The part of a node that keeps journals decides that, and here all are kept.
                JournalWrite::Forget => {}
            }
        }
    }

    /// How many commands it holds whose end the shard may not know.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What a node's disk is asked to do, in order.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Open(AgentId),
    Write(u64, AgentId, Vec<JournalWrite>),
}

/// The disk of a host, as far as journals need it.
#[derive(Clone, Debug, Default)]
pub(super) struct Journals {
    pub(super) durable: BTreeMap<AgentId, Journal>,
    pub(super) serials: Serials,
    pub(super) queue: VecDeque<Work>,
}
