//! The journals of nodes: what their disks write, keep and lose.

use rand::RngExt as _;
use skep_engine::{Event as EngineEvent, InboxEvent};
use skep_protocol::ids::JournalId;
use skep_protocol::journal::{JournalJob, JournalReport, JournalState, JournalWrite};
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::journal::{Journal, Journals, Work};
use super::names::SHARD;
use super::nodes::Nodes;
use super::parcel::Event;
use super::watch::Seen;

/// How long a write takes to be durable, and one in this many that takes much longer, in milliseconds.
const SYNC_MS: std::ops::RangeInclusive<u64> = 1..=6;
const SLOW_ONE_IN: u32 = 40;
const SLOW_MS: std::ops::RangeInclusive<u64> = 100..=1_500;

impl Nodes {
    pub(super) fn on_journal(&mut self, host: usize, job: JournalJob) {
        let work = match job {
            JournalJob::Open { agent, .. } => Work::Open(agent),
            JournalJob::Write { key, agent, writes, .. } => Work::Write(key, agent, writes),
            JournalJob::Release { .. } => return,
        };
        let journals = &mut self.hosts[host].journals;
        journals.queue.push_back(work);
        if journals.queue.len() == 1 {
            self.sync_later(host);
        }
    }

    fn sync_later(&mut self, host: usize) {
        let slow = self.ports.rng.random_ratio(1, SLOW_ONE_IN);
        let delay = if slow { self.ports.rng.random_range(SLOW_MS) } else { self.ports.rng.random_range(SYNC_MS) };
        let run = self.ports.machines[host].run;
        self.ports.after(delay, Event::Synced { host, run });
    }

    pub(super) fn on_synced(&mut self, host: usize, run: u32) {
        if self.ports.machines[host].run != run || !self.ports.takes(host, || Event::Synced { host, run }) {
            return;
        }
        let Some(work) = self.hosts[host].journals.queue.pop_front() else { return };
        if !self.hosts[host].journals.queue.is_empty() {
            self.sync_later(host);
        }
        let event = match work {
            Work::Write(key, agent, writes) => {
                self.write_journal(host, &agent, writes);
                InboxEvent::Journal(JournalReport::Written { key })
            }
            Work::Open(agent) => {
                let id = JournalId::from_bytes(self.ports.rng.random());
                let fresh = || Journal::new(id);
                let journals = &mut self.hosts[host].journals;
                let journal = journals.durable.entry(agent.clone()).or_insert_with(fresh).state(&journals.serials);
                self.found(host, journal.clock_floor);
                InboxEvent::Journal(JournalReport::Opened { shard: SHARD, agent, journal: Box::new(journal) })
            }
        };
        self.tell_engine(host, EngineEvent::Inbox(event));
    }

    fn write_journal(&mut self, host: usize, agent: &AgentId, writes: Vec<JournalWrite>) {
        if self.ports.plan.liar.is_some() && self.hosts[host].journals.durable.contains_key(agent) {
            for write in &writes {
                self.ports.see(&Seen::Kept { host, agent, write });
            }
        }
        let journals = &mut self.hosts[host].journals;
        if let Some(journal) = journals.durable.get_mut(agent) {
            journal.apply(writes, &mut journals.serials);
        }
    }

    /// Gives a node a journal, by which the shard's clock has come to this.
    fn found(&mut self, host: usize, floor: LogInstant) {
        if floor > LogInstant::ZERO {
            let (run, boot_ms) = (self.ports.machines[host].run, self.ports.boot_ms(host));
            self.ports.see(&Seen::FloorFound { host, run, boot_ms, floor });
        }
    }

    /// Ends a node's writes under way: the first of them may have reached the disk, but no reader heard so.
    pub(super) fn crash_journals(&mut self, host: usize, wiped: bool) {
        let queue = std::mem::take(&mut self.hosts[host].journals.queue);
        let reached = self.ports.rng.random_range(0..=queue.len());
        for work in queue.into_iter().take(reached) {
            if let Work::Write(_, agent, writes) = work {
                self.write_journal(host, &agent, writes);
            }
        }
        if wiped {
            self.ports.watch.coverage.journals_lost += u64::from(!self.hosts[host].journals.durable.is_empty());
            self.hosts[host].journals = Journals::default();
            self.ports.see(&Seen::JournalsLost { host });
        }
    }

    /// Gives a node that starts what its journals hold.
    pub(super) fn start_journals(&mut self, host: usize) {
        let journals = &self.hosts[host].journals;
        let found = journals.durable.iter().filter(|(_, journal)| !journal.is_empty());
        let found: Vec<(AgentId, JournalState)> =
            found.map(|(agent, journal)| (agent.clone(), journal.state(&journals.serials))).collect();
        for (agent, journal) in found {
            self.found(host, journal.clock_floor);
            let opened = JournalReport::Opened { shard: SHARD, agent, journal: Box::new(journal) };
            self.tell_engine(host, EngineEvent::Inbox(InboxEvent::Journal(opened)));
        }
    }
}
