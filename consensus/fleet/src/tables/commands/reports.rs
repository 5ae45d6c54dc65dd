//! The progress of commands under way, and since when the shard heard nothing of them.

use skep_protocol::command::{CommandChange, CommandProgress, CommandRefusal, DeliveryReport, Steps};
use skep_protocol::fleet::FleetLimits;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::text::Reason;
use skep_protocol::time::LogInstant;

use super::deliveries::said_bytes;
use super::{CommandState, Commands, Cx, DeliveryState};

/// What a report says that was not known.
struct News {
    /// All steps that are known after the report, and the new ones among them.
    steps: Steps,
    new_steps: Steps,
    /// The progress of the command.
    progress: Option<CommandProgress>,
    /// Whether that is far enough beyond what the history has of it.
    keeps: bool,
}

impl DeliveryState {
    /// What a report says that is new. None if the report is old and the command was begun anew since. The history
    /// keeps the progress of a command once it has advanced by this many thousandths.
    fn news(&self, report: &DeliveryReport, kept_permille: u16) -> Option<News> {
        if report.steps.started.zip(self.steps.started).is_some_and(|(said, known)| said < known) {
            return None;
        }
        let steps = report.steps.or(self.steps);
        let new_steps = steps.since(self.steps);
        // The command was begun anew: what was said of the time before does not matter.
        let (before, told) = match new_steps.started.is_some() {
            true => (None, None),
            false => (self.progress.as_ref(), self.progress_told),
        };
        let later = |said: &CommandProgress| {
            before.is_none_or(|before| said.at.zip(before.at).is_none_or(|(said, before)| said >= before))
        };
        let bounded = |said: CommandProgress| CommandProgress { permille: said.permille.min(1_000), ..said };
        let said = report.progress.clone().map(bounded).filter(later);
        let far = |said: &CommandProgress| told.is_none_or(|told| said.permille >= told.saturating_add(kept_permille));
        let keeps = said.as_ref().is_some_and(far);
        Some(News { steps, new_steps, progress: said.or_else(|| before.cloned()), keeps })
    }
}

impl Commands {
    /// Takes a node's report of the progress of a command. A command that has ended takes none.
    pub(super) fn report_delivery(&mut self, report: &DeliveryReport, cx: &mut Cx<'_>) -> Result<Receipt, Refusal> {
        let (id, seq) = (report.command, report.seq);
        let delivery = self.delivery(id, &report.agent).filter(|delivery| delivery.seq == Some(seq));
        let delivery = delivery.ok_or(CommandRefusal::NoSuchCommand(id))?;
        let (open, node) = (delivery.outcome.is_none(), delivery.node);
        let receipt = Receipt::DeliveryReported { command: id, open };
        let news = delivery.news(report, cx.limits.progress_kept_permille);
        let Some(news) = news.filter(|_| open) else { return Ok(receipt) };
        let News { steps, new_steps, progress, keeps } = news;
        let (clock, now) = (cx.now, progress.clone().map(|said| self.fitting(said, cx.limits)));
        self.change(id, |record| {
            if let Some(delivery) = record.deliveries.get_mut(&report.agent) {
                let before = said_bytes(delivery);
                if new_steps.started.is_some() {
                    delivery.progress_told = None;
                }
                if keeps {
                    delivery.progress_told = now.as_ref().map(|said| said.permille);
                }
                (delivery.steps, delivery.progress) = (steps, now);
                delivery.heard_at = report.under_way.then_some(clock).or(delivery.heard_at);
                record.said_bytes = record.said_bytes.saturating_sub(before) + said_bytes(delivery);
            }
        });
        if new_steps != Steps::default() || keeps {
            let (agent, trace, progress) = (report.agent.clone(), self.trace(&id), progress.filter(|_| keeps));
            let steps = new_steps;
            cx.record((id, CommandChange::DeliveryReported { trace, agent, seq, node, steps, progress }));
        }
        Ok(receipt)
    }

    /// What an agent's software says of a command, without its text if there is no room for that.
    fn fitting(&self, said: CommandProgress, limits: &FleetLimits) -> CommandProgress {
        let full = self.bytes.saturating_add(limits.note_bytes_max) > limits.command_bytes_max;
        if full { CommandProgress { note: Reason::truncated(""), ..said } } else { said }
    }

    /// Notes who leads. Before a leader was there, and when the clock was lost, nodes could report to no leader what is
    /// under way: from then on they have the full time again.
    pub(crate) fn note_leader(&mut self, clock_lost: bool, cx: &Cx<'_>) {
        if self.led_since.0 != cx.term || clock_lost {
            self.led_since = (cx.term, cx.now);
        }
    }

    /// From when on a delivery is in doubt after its deadline, by the last report of its node. A delivery that nobody
    /// would wait for so long is in doubt whatever its node says: its software may hang.
    pub(super) fn silent_from(&self, record: &CommandState, delivery: &DeliveryState, cx: &Cx<'_>) -> LogInstant {
        let (_, led_since) = self.led_since;
        let heard_at = delivery.heard_at.map_or(led_since, |at| at.max(led_since));
        // A deadline in an era that is over does not tell how long ago it passed.
        let same_era = record.deadline().era() == cx.now.era();
        let from = if same_era { record.deadline() } else { led_since };
        let latest = from.plus_ms(cx.limits.under_way_ms_max).max(led_since);
        heard_at.min(latest).plus_ms(cx.limits.doubt_after_ms)
    }
}
