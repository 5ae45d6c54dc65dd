//! S2, S5 and L8 of commands, and whether the shard tells the truth of them: the check compares what the shard says
//! with what the world saw.

use std::collections::BTreeMap;

use skep_client::v1;

use super::in_order;
use crate::record::hex;
use crate::site::crew::deed;
use crate::site::station::{Effect, Step};

/// How far the shard's clock and an operator's may be apart, in milliseconds, beside what [`Amid::way_ms`] allows.
const CLOCK_ERROR_MS: u64 = 500;

/// A command as its operator sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentCommand<'a> {
    pub(crate) sent_ns: u64,
    pub(crate) valid_ms: u64,
    /// The state of the command at the end.
    pub(crate) view: &'a v1::CommandView,
}

/// A run of a robot's software that was suspended, on the boot clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) run: String,
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

/// What happened meanwhile that commands are judged by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amid {
    pub(crate) pauses: Vec<Pause>,
    /// When each leader began to lead, on the boot clock, rising.
    pub(crate) leads_ns: Vec<u64>,
    /// How long a frame may be under way between two nodes, in milliseconds. The clock of a leader may lag that of the
    /// former one by this much, which makes deadlines later that were made of the former one.
    pub(crate) way_ms: u64,
}

impl Amid {
    /// How much later deadlines may have become from one instant to another, in milliseconds.
    fn lag_ms(&self, from_ns: u64, to_ns: u64) -> u64 {
        let followed = self.leads_ns.iter().filter(|at| (from_ns..=to_ns).contains(*at)).count() as u64;
        followed * self.way_ms
    }

    /// Whether a run of a robot's software was suspended between its look at the clock and its question: it cannot
    /// know.
    fn was_suspended(&self, effect: &Effect) -> bool {
        let q = &effect.question;
        let (run, checked_ns) = (q.run_name(), q.checked_ms * 1_000_000);
        self.pauses.iter().any(|pause| pause.run == run && pause.from_ns <= effect.at_ns && pause.to_ns >= checked_ns)
    }
}

/// What the check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Starts after the first one of a command at a robot, refused or not.
    pub(crate) duplicates: Vec<String>,
    /// Starts after the command's deadline, or by an owner that a later one had followed.
    pub(crate) stale: Vec<String>,
    /// Robots at which a command never ended.
    pub(crate) limbo: Vec<String>,
    /// What the shard says and the world did not see.
    pub(crate) untrue: Vec<String>,
    /// How many commands ended with each outcome.
    pub(crate) outcomes: BTreeMap<String, usize>,
}

/// What the world saw of one command at one robot.
#[derive(Debug, Default)]
struct Seen<'a> {
    starts: Vec<&'a Effect>,
    done: usize,
}

pub(crate) fn judge(commands: &[SentCommand<'_>], effects: &[Effect], amid: &Amid) -> Verdict {
    let mut seen: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    for effect in effects {
        let of = seen.entry(effect.question.task.as_str()).or_default();
        match effect.question.step {
            Step::Start => of.starts.push(effect),
            Step::Done => of.done += usize::from(effect.refused.is_none()),
        }
    }
    let stale = in_order::stale_starts(effects, |start| amid.was_suspended(start));
    let mut verdict = Verdict { stale, ..Verdict::default() };
    for sent in commands {
        let id = sent.view.command.as_ref().map(|command| command.id.clone()).unwrap_or_default();
        for delivery in &sent.view.deliveries {
            let nothing = Seen::default();
            let seen = seen.remove(deed(&id, &delivery.agent).as_str()).unwrap_or(nothing);
            let name = format!("command {} at {}", hex(&id), delivery.agent);
            judge_one(&mut verdict, sent, delivery, &seen, &name, amid);
        }
    }
    // The world saw these, and no operator sent them.
    verdict.untrue.extend(seen.keys().map(|task| format!("{task} was done, and no command says so")));
    verdict
}

fn judge_one(
    verdict: &mut Verdict,
    sent: &SentCommand<'_>,
    delivery: &v1::CommandDelivery,
    seen: &Seen<'_>,
    name: &str,
    amid: &Amid,
) {
    if seen.starts.len() > 1 {
        verdict.duplicates.push(format!("{name} was started {} times", seen.starts.len()));
    }
    for start in &seen.starts {
        let q = &start.question;
        let lag_ms = amid.lag_ms(sent.sent_ns, start.at_ns);
        let deadline_ms = sent.sent_ns / 1_000_000 + sent.valid_ms + CLOCK_ERROR_MS + lag_ms;
        let (asked_ms, at_ms) = (q.checked_ms, start.at_ns / 1_000_000);
        let suspended = amid.was_suspended(start);
        if asked_ms >= q.until_ms || asked_ms > deadline_ms || (at_ms > deadline_ms && !suspended) {
            verdict.stale.push(format!("{name} was started at {at_ms} ms and was to be by {deadline_ms} ms"));
        }
    }
    let outcome = delivery.outcome.as_str();
    *verdict.outcomes.entry(outcome.to_owned()).or_default() += 1;
    let is_true = match outcome {
        "" => {
            verdict.limbo.push(name.to_owned());
            true
        }
        "succeeded" => seen.starts.len() == 1 && seen.done == 1,
        "rejected" | "expired" | "cancelled" | "superseded" => seen.starts.is_empty(),
        "failed" => seen.done == 0,
        "indeterminate" => true,
        _ => false,
    };
    if !is_true {
        let (starts, done) = (seen.starts.len(), seen.done);
        verdict.untrue.push(format!("{name} is {outcome:?}, and it was started {starts} times and done {done} times"));
    }
    let steps = [delivery.released_at, delivery.received_at, delivery.started_at, delivery.finished_at];
    let taken: Vec<u64> = steps.into_iter().filter(|at| *at > 0).collect();
    if !taken.is_sorted() {
        verdict.untrue.push(format!("{name} took its steps at {taken:?}"));
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{AttachmentId, HomeEpoch};
    use skep_protocol::offer::GoToken;

    use super::*;
    use crate::site::station::{Question, Refused};

    fn view(outcome: &str) -> v1::CommandView {
        let command = Some(v1::Command { id: vec![7], ..v1::Command::default() });
        let delivery = v1::CommandDelivery { agent: "r".into(), outcome: outcome.into(), ..Default::default() };
        v1::CommandView { command, deliveries: vec![delivery], ..v1::CommandView::default() }
    }

    fn effect(step: Step, at_ms: u64, refused: Option<Refused>) -> Effect {
        let (robot, task) = ("r".to_owned(), deed(&[7], "r"));
        let question = Question {
            robot,
            run: 0,
            task,
            epoch: 1,
            errand: 0,
            step,
            checked_ms: at_ms,
            until_ms: 1_000,
            token: None,
        };
        Effect { at_ns: at_ms * 1_000_000, question, refused }
    }

    fn found(outcome: &str, effects: &[Effect], pauses: &[Pause]) -> (usize, usize, usize, usize) {
        found_amid(outcome, effects, &Amid { pauses: pauses.to_vec(), ..Amid::default() })
    }

    fn found_amid(outcome: &str, effects: &[Effect], amid: &Amid) -> (usize, usize, usize, usize) {
        let view = view(outcome);
        let verdict = judge(&[SentCommand { sent_ns: 0, valid_ms: 1_000, view: &view }], effects, amid);
        (verdict.duplicates.len(), verdict.stale.len(), verdict.limbo.len(), verdict.untrue.len())
    }

    #[test]
    fn what_the_shard_says_is_held_against_what_the_world_saw() {
        let (start, done) = (effect(Step::Start, 10, None), effect(Step::Done, 20, None));
        assert_eq!(found("succeeded", &[start.clone(), done.clone()], &[]), (0, 0, 0, 0));
        assert_eq!(found("succeeded", &[], &[]), (0, 0, 0, 1), "it was not done");
        assert_eq!(found("expired", std::slice::from_ref(&start), &[]), (0, 0, 0, 1), "it was started");
        assert_eq!(found("expired", &[], &[]), (0, 0, 0, 0));
        assert_eq!(found("failed", &[start.clone(), done], &[]), (0, 0, 0, 1), "it was done");
        assert_eq!(found("indeterminate", std::slice::from_ref(&start), &[]), (0, 0, 0, 0));
        assert_eq!(found("", std::slice::from_ref(&start), &[]), (0, 0, 1, 0), "it never ended");
        let again = effect(Step::Start, 30, Some(Refused::Duplicate));
        assert_eq!(found("indeterminate", &[start, again], &[]), (1, 0, 0, 0), "refused or not");
    }

    #[test]
    fn a_start_after_the_deadline_is_stale_unless_the_software_was_suspended_after_its_look() {
        let mut late = effect(Step::Start, 1_600, None);
        late.question.until_ms = 9_000;
        assert_eq!(found("indeterminate", std::slice::from_ref(&late), &[]), (0, 1, 0, 0));
        late.question.checked_ms = 900;
        assert_eq!(found("indeterminate", std::slice::from_ref(&late), &[]), (0, 1, 0, 0));
        let mut pause = Pause { run: "r".into(), from_ns: 910_000_000, to_ns: 1_590_000_000 };
        assert_eq!(found("indeterminate", std::slice::from_ref(&late), std::slice::from_ref(&pause)), (0, 0, 0, 0));
        pause.run = "r+1".into();
        assert_eq!(found("indeterminate", &[late], &[pause]), (0, 1, 0, 0), "it was another run that was suspended");
        let past = effect(Step::Start, 1_000, None);
        assert_eq!(found("indeterminate", &[past], &[]), (0, 1, 0, 0), "its own bound had passed");
    }

    #[test]
    fn each_leader_since_a_command_was_sent_may_make_its_deadline_later_by_the_way_of_a_frame() {
        let mut late = effect(Step::Start, 1_700, None);
        late.question.until_ms = 9_000;
        let amid = |leads_ns: &[u64]| Amid { leads_ns: leads_ns.to_vec(), way_ms: 300, ..Amid::default() };
        let found = |amid: &Amid| found_amid("indeterminate", std::slice::from_ref(&late), amid).1;
        assert_eq!(found(&amid(&[])), 1);
        assert_eq!(found(&amid(&[900_000_000])), 0);
        assert_eq!(found(&amid(&[1_800_000_000])), 1, "one that led after it was started changed nothing");
        assert_eq!(found(&Amid { way_ms: 100, ..amid(&[900_000_000]) }), 1);
    }

    #[test]
    fn a_start_by_an_owner_that_was_followed_is_stale_unless_the_station_stopped_one_that_was_suspended() {
        let by = |attachment, at_ms, refused| {
            let token = GoToken { home: HomeEpoch(1), attachment: AttachmentId(attachment) };
            let mut start = effect(Step::Start, at_ms, refused);
            (start.question.task, start.question.token) = (deed(&[attachment as u8], "r"), Some(token));
            start
        };
        let stale = |effects: &[Effect], pauses: &[Pause]| {
            judge(&[], effects, &Amid { pauses: pauses.to_vec(), ..Amid::default() }).stale.len()
        };
        let pause = Pause { run: "r".into(), from_ns: 10_000_000, to_ns: 30_000_000 };
        assert_eq!(stale(&[by(7, 10, None), by(8, 20, None)], &[]), 0);
        assert_eq!(stale(&[by(8, 10, None), by(7, 20, None)], std::slice::from_ref(&pause)), 1, "it was let happen");
        let stopped = [by(8, 10, None), by(7, 20, Some(Refused::Stale))];
        assert_eq!(stale(&stopped, &[]), 1, "it did not stop by itself");
        assert_eq!(stale(&stopped, &[pause]), 0);
    }

    #[test]
    fn deeds_that_nobody_ordered_and_steps_out_of_order_are_found() {
        let mut stray = effect(Step::Start, 10, None);
        stray.question.task = deed(&[8], "r");
        assert_eq!(found("expired", &[stray], &[]), (0, 0, 0, 1));
        let mut view = view("expired");
        (view.deliveries[0].released_at, view.deliveries[0].received_at) = (5, 4);
        let verdict = judge(&[SentCommand { sent_ns: 0, valid_ms: 1_000, view: &view }], &[], &Amid::default());
        assert_eq!(verdict.untrue.len(), 1);
    }
}
