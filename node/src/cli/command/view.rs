//! How the command line shows commands.

use serde::Serialize;
use skep_client::v1;

use crate::cli::Failure;
use crate::cli::as_of::AsOf;
use crate::cli::output::{ANOTHER_ERA, Format, Row, between, json_line, one, print, rows, span, uuid_text};

#[derive(Serialize)]
pub(super) struct Receipt {
    pub(super) command: String,
    pub(super) agents: u32,
    pub(super) open: u32,
    pub(super) index: u64,
}

impl From<v1::CommandReceipt> for Receipt {
    fn from(receipt: v1::CommandReceipt) -> Self {
        let v1::CommandReceipt { command_id, agents, open, index, .. } = receipt;
        Self { command: uuid_text(&command_id), agents, open, index }
    }
}

/// The end of a node's id, which differs from node to node.
fn short(node: &str) -> String {
    node.char_indices().rev().nth(7).map_or(node.to_owned(), |(at, _)| format!("…{}", &node[at..]))
}

/// One command of a list.
#[derive(Serialize)]
pub(super) struct Line {
    command: String,
    target: String,
    verb: String,
    agents: u32,
    open: u32,
    index: u64,
}

impl Line {
    pub(super) fn new(view: v1::CommandView) -> Self {
        let command = view.command.unwrap_or_default();
        let (agents, open, index) = (view.agents, view.open, view.index);
        Self { command: uuid_text(&command.id), target: command.target, verb: command.verb, agents, open, index }
    }
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["command", "target", "verb", "agents", "open", "index"];
    fn cells(&self) -> Vec<String> {
        let numbers = [self.agents.to_string(), self.open.to_string(), self.index.to_string()];
        [self.command.clone(), self.target.clone(), self.verb.clone()].into_iter().chain(numbers).collect()
    }
}

/// How long a step took, in milliseconds; none, which is null in JSON, if the shard lost its clock meanwhile.
type Took = Option<u64>;

/// A command at one robot: how long each step took after the one before. Steps that did not happen are left out.
#[derive(Serialize)]
pub(super) struct Delivery {
    agent: String,
    /// The robot's node, once that may have the command.
    node: String,
    seq: String,
    wave: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_ms: Option<Took>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_ms: Option<Took>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_ms: Option<Took>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_ms: Option<Took>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_ms: Option<Took>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<Took>,
    pub(super) outcome: String,
    reason: String,
    result: String,
    /// How far the command has come, in percent, as the robot's software says, while the command is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl Delivery {
    fn new(of: v1::CommandDelivery, accepted_at: u64) -> Self {
        let mut before = accepted_at;
        let mut step = |at: u64| {
            let took: Option<Took> = (at > 0).then(|| between(before, at));
            before = before.max(at);
            took
        };
        let (released_ms, received_ms) = (step(of.released_at), step(of.received_at));
        let (accepted_ms, started_ms) = (step(of.accepted_at), step(of.started_at));
        let (finished_ms, ended_ms) = (step(of.finished_at), step(of.ended_at));
        let outcome = match of.void.as_str() {
            _ if !of.outcome.is_empty() => of.outcome,
            "" => "open".to_owned(),
            // The robot began the command in time.
            "expired" if of.started_at > 0 => "open".to_owned(),
            void => format!("open, {void}"),
        };
        let result = String::from_utf8_lossy(&of.result).into_owned();
        let percent = of.progress.as_ref().map(|progress| f64::from(progress.permille) / 10.0);
        let note = of.progress.map(|progress| progress.note).unwrap_or_default();
        let (agent, node, seq, wave, reason) = (of.agent, of.node, of.seq, of.wave, of.reason);
        Self {
            agent,
            node,
            seq,
            wave,
            released_ms,
            received_ms,
            accepted_ms,
            started_ms,
            finished_ms,
            ended_ms,
            outcome,
            reason,
            result,
            percent,
            note,
        }
    }
}

impl Delivery {
    /// How the command ended, and why.
    pub(super) fn said(&self) -> String {
        let Self { agent, outcome, reason, .. } = self;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        format!("ended as {outcome} at {agent}{why}")
    }
}

impl Row for Delivery {
    const COLUMNS: &'static [&'static str] = &[
        "agent",
        "node",
        "seq",
        "wave",
        "released",
        "received",
        "accepted",
        "started",
        "finished",
        "committed",
        "outcome",
        "said",
    ];
    fn cells(&self) -> Vec<String> {
        let ms = |step: Option<Took>| {
            step.map(|took| took.map_or(ANOTHER_ERA.to_owned(), |ms| format!("+{ms} ms"))).unwrap_or_default()
        };
        let said = match self.percent {
            Some(percent) => format!("{percent} % {}", self.note).trim_end().to_owned(),
            None if self.reason.is_empty() => self.result.clone(),
            None => self.reason.clone(),
        };
        vec![
            self.agent.clone(),
            short(&self.node),
            self.seq.clone(),
            self.wave.to_string(),
            ms(self.released_ms),
            ms(self.received_ms),
            ms(self.accepted_ms),
            ms(self.started_ms),
            ms(self.finished_ms),
            ms(self.ended_ms),
            self.outcome.clone(),
            said,
        ]
    }
}

/// A command, and its state at each robot.
#[derive(Serialize)]
pub(crate) struct View {
    command: String,
    target: String,
    verb: String,
    args: String,
    operator: String,
    traceparent: String,
    valid_ms: Option<u64>,
    index: u64,
    term: u64,
    agents: u32,
    pub(super) open: u32,
    pub(super) deliveries: Vec<Delivery>,
    /// The age of the answer, if it is from a replica as that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<AsOf>,
}

impl View {
    pub(crate) fn new(view: v1::CommandView) -> Self {
        let command = view.command.unwrap_or_default();
        let accepted_at = view.accepted_at;
        Self {
            command: uuid_text(&command.id),
            target: command.target,
            verb: command.verb,
            args: String::from_utf8_lossy(&command.args).into_owned(),
            operator: command.operator,
            traceparent: command.traceparent,
            valid_ms: between(accepted_at, command.deadline),
            index: view.index,
            term: view.term,
            agents: view.agents,
            open: view.open,
            deliveries: view.deliveries.into_iter().map(|of| Delivery::new(of, accepted_at)).collect(),
            as_of: None,
        }
    }

    /// The same view with its age, if it may be old.
    pub(super) fn of_replica(view: v1::CommandView, as_of: AsOf) -> Self {
        Self { as_of: (!as_of.linearizable).then_some(as_of), ..Self::new(view) }
    }

    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        if format != Format::Table {
            return one(format, self, &[]);
        }
        let lines = [
            ("command", self.command.clone()),
            ("target", self.target.clone()),
            ("verb", self.verb.clone()),
            ("args", self.args.clone()),
            ("operator", self.operator.clone()),
            ("trace", self.traceparent.clone()),
            ("valid for", self.valid_ms.map_or(ANOTHER_ERA.to_owned(), span)),
            ("accepted", format!("entry {} of term {}", self.index, self.term)),
            ("open", format!("{} of {}", self.open, self.agents)),
        ];
        one(format, self, &lines)?;
        print("")?;
        rows(format, &self.deliveries)
    }
}

/// One step in the life of a command.
#[derive(Serialize)]
pub(super) struct Step {
    command: String,
    kind: String,
    agent: String,
    node: String,
    seq: String,
    outcome: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<f64>,
    operator: String,
    traceparent: String,
    index: u64,
    term: u64,
    clock: u64,
    at: u64,
}

impl Step {
    pub(super) fn new(event: v1::CommandEvent) -> Self {
        Self {
            command: uuid_text(&event.command_id),
            percent: (event.kind == "progressed").then(|| f64::from(event.permille) / 10.0),
            kind: event.kind,
            agent: event.agent,
            node: event.node,
            seq: event.seq,
            outcome: event.outcome,
            detail: event.detail,
            operator: event.operator,
            traceparent: event.traceparent,
            index: event.index,
            term: event.term,
            clock: event.clock,
            at: event.at,
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        if format != Format::Table {
            return json_line(self);
        }
        let mut line = format!("{} {}", self.command, self.kind);
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                line.push_str(&format!(" {name} {value}"));
            }
        };
        add("at", &self.agent);
        add("as", &self.outcome);
        add("to", &self.percent.map(|percent| format!("{percent} %")).unwrap_or_default());
        add(if self.percent.is_some() { "saying" } else { "because" }, &self.detail);
        add("seq", &self.seq);
        add("node", &short(&self.node));
        add("by", &self.operator);
        let told = |ms: u64| if ms > 0 { span(ms) } else { String::new() };
        let after = between(self.at, self.clock).map_or(ANOTHER_ERA.to_owned(), told);
        add("told after", &after);
        add("· index", &self.index.to_string());
        add("term", &self.term.to_string());
        print(&line)
    }
}
