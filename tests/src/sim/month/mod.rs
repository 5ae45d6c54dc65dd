//! Weeks of steady load in virtual time: agents that come and go under ids of their own, tasks, commands.
//!
//! The leader runs the product's own state machine and orchestrator, nodes its own engines. Nothing goes wrong, and nobody
//! waits for anybody: a day is some ten thousand steps. What is looked at is how much of everything is left of it, day after
//! day.

mod agents;
mod site;
mod software;

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use site::Site;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// The day by the end of which everything has the size that it keeps: what is bounded by a number is full, what is kept for a
/// time is as old as it gets.
pub const SETTLED_DAY: u64 = 7;
/// What may be between that day and the last: half as much again, and what chance makes of a few.
const GROWTH_PERCENT_MAX: u64 = 150;
const SOME: u64 = 32;
const SOME_BYTES: u64 = 16 * 1_024;
/// Request ids may be forgotten many at a time.
const SOME_IDS: u64 = 1_024;
/// How long after the last order everything has come to its end, in milliseconds.
const CLOSES_MS: u64 = 180 * MINUTE_MS;

/// How long, and how much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthOptions {
    /// How many days.
    pub days: u64,
    /// The seed of everything else.
    pub seed: u64,
    /// How many tasks are ordered on each day.
    pub tasks_per_day: u64,
    /// How many commands are sent on each day.
    pub commands_per_day: u64,
    /// Agents that come, each under an id of its own, for about two hours.
    pub sessions_per_day: u64,
}

impl Default for MonthOptions {
    /// A month in which as many tasks and commands end in the first seven days as are kept.
    fn default() -> Self {
        Self { days: 30, seed: 1, tasks_per_day: 1_600, commands_per_day: 1_600, sessions_per_day: 192 }
    }
}

/// How much of everything there is at the end of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The number of the day, from 1.
    pub day: u64,
    /// Entries of the log so far.
    pub entries: u64,
    /// Tasks that have not ended.
    pub live_tasks: u64,
    /// Tasks that have, and are kept.
    pub kept_tasks: u64,
    /// Agents that are known.
    pub agents: u64,
    /// Agents that are attached.
    pub attached: u64,
    /// Request ids that are remembered.
    pub request_ids: u64,
    /// Commands that have not ended.
    pub open_commands: u64,
    /// Commands that have, and are kept.
    pub kept_commands: u64,
    /// Operators.
    pub operators: u64,
    /// A snapshot of the state, in bytes.
    pub snapshot_bytes: u64,
    /// Journals on the disks of all nodes.
    pub journals: u64,
    /// What is in them: commands whose end the shard may not know.
    pub journal_entries: u64,
    /// All that the orchestrator has in memory, as the length of a text that shows it.
    pub orchestrator_text: u64,
    /// The same of all engines.
    pub engines_text: u64,
    /// The same of the state, with its indexes; only on the days that are compared.
    pub state_text: Option<u64>,
}

/// Something that has grown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// The name of the part that has grown.
    pub part: String,
    /// How much of it there was at the end of [`SETTLED_DAY`].
    pub settled: u64,
    /// How much of it there was at the end of the last day.
    pub last: u64,
}

/// How a month went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Month {
    /// What was asked for.
    pub options: MonthOptions,
    /// Agents that came.
    pub sessions: u64,
    /// One for each day.
    pub samples: Vec<Sample>,
    /// What must not grow, and did.
    pub grown: Vec<Growth>,
    /// What has not come to its end, three hours after the last order.
    pub left: Vec<String>,
}

/// Counts what is written to it.
struct Length(u64);

impl fmt::Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len() as u64;
        Ok(())
    }
}

/// How long a text is that leaves nothing out.
fn text_of(what: &impl fmt::Debug) -> u64 {
    let mut length = Length(0);
    // Counting does not fail.
    let _ = write!(length, "{what:?}");
    length.0
}

impl Sample {
    fn of(site: &Site, day: u64, is_compared: bool) -> Self {
        let state = &site.state;
        let counts = state.counts();
        let commands = state.commands_after(None);
        let (open, ended): (Vec<bool>, Vec<bool>) = commands.map(|command| command.open > 0).partition(|open| *open);
        let journals = || site.nodes.iter().flat_map(|node| node.journals.values());
        Self {
            day,
            entries: site.entries,
            live_tasks: counts.pending + counts.claimed,
            kept_tasks: counts.terminal,
            agents: counts.agents,
            attached: state.agents_after(None).filter(|agent| agent.attachment.is_some()).count() as u64,
            request_ids: state.dedup_ids() as u64,
            open_commands: open.len() as u64,
            kept_commands: ended.len() as u64,
            operators: state.operators().count() as u64,
            snapshot_bytes: state.to_snapshot().map_or(0, |bytes| bytes.len() as u64),
            journals: journals().count() as u64,
            journal_entries: journals().map(|journal| journal.len() as u64).sum(),
            orchestrator_text: text_of(&site.orchestrator),
            engines_text: site.nodes.iter().map(|node| text_of(&node.engine)).sum(),
            state_text: is_compared.then(|| text_of(state)),
        }
    }

    /// Its parts: what they are called, how much there is of them, and by how much chance may change that.
    fn parts(&self) -> [(&'static str, Option<u64>, u64); 14] {
        [
            ("live tasks", Some(self.live_tasks), SOME),
            ("kept tasks", Some(self.kept_tasks), SOME),
            ("agents", Some(self.agents), SOME),
            ("attached", Some(self.attached), SOME),
            ("request ids", Some(self.request_ids), SOME_IDS),
            ("open commands", Some(self.open_commands), SOME),
            ("kept commands", Some(self.kept_commands), SOME),
            ("operators", Some(self.operators), 0),
            ("snapshot", Some(self.snapshot_bytes), SOME_BYTES),
            ("journals", Some(self.journals), SOME),
            ("journal entries", Some(self.journal_entries), SOME / 2),
            ("orchestrator", Some(self.orchestrator_text), SOME_BYTES),
            ("engines", Some(self.engines_text), SOME_BYTES),
            ("state", self.state_text, SOME_BYTES),
        ]
    }
}

/// What has grown between two days.
fn growth(settled: &Sample, last: &Sample) -> Vec<Growth> {
    let pairs = settled.parts().into_iter().zip(last.parts());
    let grown = pairs.filter_map(|((part, before, some), (_, after, _))| {
        let (settled, last) = before.zip(after)?;
        let part = part.to_owned();
        (last > settled * GROWTH_PERCENT_MAX / 100 + some).then_some(Growth { part, settled, last })
    });
    grown.collect()
}

fn left(last: &Sample) -> Vec<String> {
    let counted = [("tasks", last.live_tasks), ("commands", last.open_commands)];
    let left = counted.into_iter().filter(|(_, count)| *count > 0);
    left.map(|(what, count)| format!("{count} {what} have not come to their end")).collect()
}

impl Month {
    /// Runs it, and says how each day ended.
    pub fn run(options: &MonthOptions, mut tell: impl FnMut(&Sample)) -> Self {
        let mut site = Site::new(*options);
        let mut samples: Vec<Sample> = Vec::new();
        for day in 1..=options.days {
            site.run_until(day * DAY_MS);
            let sample = Sample::of(&site, day, day == SETTLED_DAY || day == options.days);
            tell(&sample);
            samples.push(sample);
        }
        let settled = samples.iter().find(|sample| sample.day == SETTLED_DAY);
        let last = samples.last().filter(|last| last.day > SETTLED_DAY);
        let grown = settled.zip(last).map(|(settled, last)| growth(settled, last)).unwrap_or_default();
        let sessions = site.came;
        site.closing = true;
        site.run_until(options.days * DAY_MS + CLOSES_MS);
        let left = left(&Sample::of(&site, options.days, false));
        Self { options: *options, sessions, samples, grown, left }
    }

    /// Whether nothing has grown and everything has come to its end.
    pub fn is_flat(&self) -> bool {
        self.grown.is_empty() && self.left.is_empty()
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, settled, last } = self;
        write!(f, "{part}: {settled} at the end of day {SETTLED_DAY}, {last} at the end of the last")
    }
}

/// A table with a row for each day, and what is wrong with it.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.samples.first() else { return Ok(()) };
        write!(f, "{:>4} {:>9}", "day", "entries")?;
        for (part, _, _) in first.parts() {
            write!(f, " {part:>15}")?;
        }
        for sample in &self.samples {
            write!(f, "\n{:>4} {:>9}", sample.day, sample.entries)?;
            for (_, value, _) in sample.parts() {
                let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
                write!(f, " {value:>15}")?;
            }
        }
        self.grown.iter().try_for_each(|grown| write!(f, "\ngrown: {grown}"))?;
        self.left.iter().try_for_each(|left| write!(f, "\nleft: {left}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few days with little to do.
    const DAYS: MonthOptions =
        MonthOptions { days: 3, seed: 7, tasks_per_day: 60, commands_per_day: 60, sessions_per_day: 36 };

    #[test]
    fn what_has_grown_by_more_than_half_is_found_and_what_chance_makes_of_a_few_is_not() {
        let month = Month::run(&MonthOptions { days: 1, ..DAYS }, |_| {});
        let settled = Sample { agents: 1_000, journal_entries: 2, ..month.samples[0].clone() };
        let later = |agents, journal_entries| Sample { agents, journal_entries, ..settled.clone() };
        assert_eq!(growth(&settled, &settled), []);
        assert_eq!(growth(&settled, &later(1_500 + SOME, 2 + SOME / 2)), []);
        let agents = Growth { part: "agents".to_owned(), settled: 1_000, last: 1_501 + SOME };
        assert_eq!(growth(&settled, &later(1_501 + SOME, 2)), [agents]);
        let entries = Growth { part: "journal entries".to_owned(), settled: 2, last: 4 + SOME / 2 };
        assert_eq!(growth(&settled, &later(1_000, 4 + SOME / 2)), [entries]);
    }

    #[test]
    fn a_month_is_the_same_every_time() {
        let days = |seed| Month::run(&MonthOptions { seed, days: 1, ..DAYS }, |_| {}).samples;
        assert_eq!(days(7), days(7));
        assert_ne!(days(7), days(8));
    }

    #[test]
    fn agents_come_work_and_go_and_everything_that_was_ordered_ends() {
        let mut told = 0;
        let month = Month::run(&DAYS, |_| told += 1);
        assert_eq!((told, month.samples.len() as u64, &month.left), (DAYS.days, DAYS.days, &Vec::new()));
        let [.., last] = month.samples.as_slice() else { panic!("no day") };
        assert!(month.sessions >= DAYS.days * DAYS.sessions_per_day, "{month:?}");
        assert!((1..10).contains(&last.attached), "{last:?}");
        assert!(last.kept_tasks >= DAYS.days * DAYS.tasks_per_day * 9 / 10, "{last:?}");
        assert!(last.kept_commands >= DAYS.days * DAYS.commands_per_day * 9 / 10, "{last:?}");
    }
}
