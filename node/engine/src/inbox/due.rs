//! When something is due in which inbox. A node may have a thousand inboxes, and the engine looks after every event.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::ShardId;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::Whose;
use super::bound::ClockBound;

/// What is due next in an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// When a command that was not started has to end, on the shard's clock.
    pub(super) deadline: Option<LogInstant>,
    /// When the node has to report to the shard how far a command has come, on this node's clock, in milliseconds.
    pub(super) report_ms: Option<u64>,
}

/// What is due next in each inbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Dues {
    deadlines: BTreeMap<ShardId, BTreeSet<(LogInstant, AgentId)>>,
    reports: BTreeSet<(u64, Whose)>,
}

impl Dues {
    /// Replaces what was due in an inbox with what is due from now on.
    pub(super) fn change(&mut self, whose: &Whose, was: Due, is: Due) {
        let (shard, agent) = whose;
        if let Some(deadline) = was.deadline
            && let Some(of) = self.deadlines.get_mut(shard)
        {
            of.remove(&(deadline, agent.clone()));
        }
        if let Some(at_ms) = was.report_ms {
            self.reports.remove(&(at_ms, whose.clone()));
        }
        if let Some(deadline) = is.deadline {
            self.deadlines.entry(*shard).or_default().insert((deadline, agent.clone()));
        }
        if let Some(at_ms) = is.report_ms {
            self.reports.insert((at_ms, whose.clone()));
        }
    }

    /// When the first of it is due, on this node's clock, in milliseconds. Reports count only if there is room for one.
    /// Deadlines count only in shards whose clock the node has heard.
    pub(super) fn first_ms(&self, bounds: &BTreeMap<ShardId, ClockBound>, room: usize) -> Option<u64> {
        let deadline = |(shard, of): (&ShardId, &BTreeSet<(LogInstant, AgentId)>)| {
            let (deadline, _) = of.first()?;
            Some(bounds.get(shard)?.reaches_at(*deadline))
        };
        let report = self.reports.first().filter(|_| room > 0).map(|(at_ms, _)| *at_ms);
        self.deadlines.iter().filter_map(deadline).chain(report).min()
    }

    /// The inboxes in which something is due by now, with no more reports than there is room for.
    pub(super) fn due(&self, bounds: &BTreeMap<ShardId, ClockBound>, now_ms: u64, room: usize) -> BTreeSet<Whose> {
        let reports = self.reports.iter().take_while(|(at_ms, _)| *at_ms <= now_ms).take(room);
        let mut due: BTreeSet<Whose> = reports.map(|(_, whose)| whose.clone()).collect();
        for (shard, of) in &self.deadlines {
            let Some(bound) = bounds.get(shard) else { continue };
            let passed = of.iter().take_while(|(deadline, _)| bound.reaches_at(*deadline) <= now_ms);
            due.extend(passed.map(|(_, agent)| (*shard, agent.clone())));
        }
        due
    }
}
