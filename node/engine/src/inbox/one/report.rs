//! What a shard is told of commands that go on: how far each has come by now, and not often.

use skep_protocol::command::{CommandProgress, Steps};
use skep_protocol::entry::DeliveryReport;
use skep_protocol::limits;
use skep_protocol::text::AgentId;

use super::{DeliverySeq, Inbox, Live};

/// How far a command has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stand {
    steps: Steps,
    progress: Option<CommandProgress>,
}

/// What the shard knows of a command that goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    known: Stand,
    /// What it is being told.
    telling: Option<Stand>,
    /// Not before this, on this node's clock; none before it was looked at once.
    at_ms: Option<u64>,
}

impl Live {
    /// What there is to tell, if there is anything and nothing is being told. Nothing is said of what is not in the journal
    /// yet, nor of what has ended: that is told for good.
    fn news(&self) -> Option<Stand> {
        let stand = Stand { steps: self.entry.steps, progress: self.progress.clone() };
        let tells = self.outcome().is_none() && self.writing == 0 && self.report.telling.is_none();
        (tells && stand != self.report.known).then_some(stand)
    }
}

impl Inbox {
    fn reports_room(&self) -> usize {
        let under_way = self.live.values().filter(|live| live.report.telling.is_some()).count();
        limits::REPORTS_IN_FLIGHT_MAX.saturating_sub(under_way)
    }

    /// When the shard is to be told of something, on this node's clock.
    pub(super) fn next_report_ms(&self) -> Option<u64> {
        let due = self.live.values().filter_map(|live| live.news().and(live.report.at_ms)).min();
        due.filter(|_| self.reports_room() > 0)
    }

    /// What the shard is to be told now, up to so many at a time.
    pub(in crate::inbox) fn reports(&mut self, agent: &AgentId, now_ms: u64) -> Vec<DeliveryReport> {
        let mut room = self.reports_room();
        let mut reports = Vec::new();
        for (seq, live) in &mut self.live {
            let at_ms = *live.report.at_ms.get_or_insert(now_ms + limits::DELIVERY_REPORT_EVERY_MS);
            let Some(news) = live.news().filter(|_| room > 0 && at_ms <= now_ms) else { continue };
            room -= 1;
            let (agent, command) = (agent.clone(), live.command());
            let Stand { steps, progress } = news.clone();
            live.report.telling = Some(news);
            reports.push(DeliveryReport { agent, command, seq: *seq, steps, progress });
        }
        reports
    }

    /// The shard knows how far a command has come, or does not and is told once more.
    pub(in crate::inbox) fn report_heard(&mut self, seq: DeliverySeq, heard: bool, now_ms: u64) {
        let Some(report) = self.live.get_mut(&seq).map(|live| &mut live.report) else { return };
        let told = report.telling.take();
        if heard {
            report.known = told.unwrap_or_default();
        }
        report.at_ms = Some(now_ms + limits::DELIVERY_REPORT_EVERY_MS);
    }
}
