//! The events in the life of commands, as watchers are told them.

use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandOutcome, ControlKind, Steps};
use skep_protocol::history::HistoryRecord;
use skep_protocol::operator::OperatorChange;
use skep_protocol::time::LogInstant;

use crate::v1;

/// The events of a change of commands: none, one, or all the steps that a robot's node reports at once.
pub fn command_events(record: &HistoryRecord) -> Vec<v1::CommandEvent> {
    let Some(id) = record.change.what.command() else { return Vec::new() };
    let event = |kind: &str, trace: &str| v1::CommandEvent {
        command_id: id.as_bytes().to_vec(),
        traceparent: trace.to_owned(),
        kind: kind.to_owned(),
        index: record.index,
        term: record.term,
        clock: record.change.at.raw(),
        at: record.change.at.raw(),
        ..v1::CommandEvent::default()
    };
    match &record.change.what {
        ChangeKind::Command { change, .. } => of_command(change, event),
        ChangeKind::Operator(OperatorChange::Refused { by, why, .. }) => {
            vec![v1::CommandEvent { operator: by.to_string(), detail: why.to_string(), ..event("refused", "") }]
        }
        ChangeKind::Operator(
            OperatorChange::Granted { .. } | OperatorChange::Forgotten { .. } | OperatorChange::FirstReplaced { .. },
        )
        | ChangeKind::Task { .. }
        | ChangeKind::Agent { .. }
        | ChangeKind::Shard(_)
        | ChangeKind::Site(_) => Vec::new(),
    }
}

/// The events of a change of a command; `event` makes one event from a kind and a trace.
fn of_command(change: &CommandChange, event: impl Fn(&str, &str) -> v1::CommandEvent) -> Vec<v1::CommandEvent> {
    match change {
        CommandChange::Accepted { signed, agents } => {
            let (operator, trace) = (signed.operator.to_string(), signed.trace.as_str());
            let detail = format!("{} for {}, {agents} agents", signed.verb, signed.target);
            vec![v1::CommandEvent { operator, detail, ..event("accepted", trace) }]
        }
        CommandChange::Released { trace, to } => {
            let released = to.iter().map(|(agent, seq)| v1::CommandEvent {
                agent: agent.to_string(),
                seq: seq.to_string(),
                ..event("released", trace.as_str())
            });
            released.collect()
        }
        CommandChange::Controlled { trace, what, by, reason } => {
            let ((kind, agent), operator, detail) = (controlled(what), by.to_string(), reason.to_string());
            vec![v1::CommandEvent { agent, operator, detail, ..event(kind, trace.as_str()) }]
        }
        CommandChange::OutcomeRefused { trace, agent, outcome, why } => {
            let (agent, outcome, detail) = (agent.to_string(), outcome.name().to_owned(), why.to_string());
            vec![v1::CommandEvent { agent, outcome, detail, ..event("refused", trace.as_str()) }]
        }
        CommandChange::DeliveryVoided { trace, agent, cause } => {
            let (agent, outcome) = (agent.to_string(), cause.name().to_owned());
            vec![v1::CommandEvent { agent, outcome, ..event("voided", trace.as_str()) }]
        }
        CommandChange::DeliveryReported { trace, agent, seq, node, steps, progress } => {
            let (agent, seq) = (agent.to_string(), seq.to_string());
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            let at_agent = v1::CommandEvent { agent, seq, node, ..event("progressed", trace.as_str()) };
            let mut events = taken(*steps, &at_agent);
            events.extend(progress.as_ref().map(|progress| v1::CommandEvent {
                at: progress.at.map_or(at_agent.at, LogInstant::raw),
                detail: progress.note.to_string(),
                permille: progress.permille.into(),
                ..at_agent
            }));
            events
        }
        CommandChange::DeliveryEnded { trace, agent, outcome, seq, node, steps } => {
            let (agent, seq) = (agent.to_string(), seq.map(|seq| seq.to_string()).unwrap_or_default());
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            let at_agent = v1::CommandEvent { agent, seq, node, ..event("ended", trace.as_str()) };
            let mut events = taken(*steps, &at_agent);
            let (detail, outcome) = (reason_of(outcome), outcome.name().to_owned());
            events.push(v1::CommandEvent { outcome, detail, ..at_agent });
            events
        }
    }
}

/// The name of a control in the life of a command, and the agent that the control names; empty if it names none.
fn controlled(what: &ControlKind) -> (&'static str, String) {
    match what {
        ControlKind::Cancel => ("cancelled", String::new()),
        ControlKind::Abort => ("aborted", String::new()),
        ControlKind::Discard => ("discarded", String::new()),
        ControlKind::Resolve { agent, .. } => ("resolved", agent.to_string()),
    }
}

/// Why a command ended as it did; empty if nobody said so.
fn reason_of(outcome: &CommandOutcome) -> String {
    match outcome {
        CommandOutcome::Failed { reason }
        | CommandOutcome::Rejected { reason }
        | CommandOutcome::Indeterminate { reason } => reason.to_string(),
        CommandOutcome::Succeeded { .. }
        | CommandOutcome::Expired
        | CommandOutcome::Cancelled
        | CommandOutcome::Superseded => String::new(),
    }
}

/// The steps that were taken at an agent, each as an event.
fn taken(steps: Steps, at_agent: &v1::CommandEvent) -> Vec<v1::CommandEvent> {
    let Steps { received, accepted, started, ended } = steps;
    let taken = [("received", received), ("taken", accepted), ("started", started), ("finished", ended)];
    let step = |(kind, at): (&str, Option<LogInstant>)| {
        Some(v1::CommandEvent { kind: kind.to_owned(), at: at?.raw(), ..at_agent.clone() })
    };
    taken.into_iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::change::Change;
    use skep_protocol::ids::CommandId;

    #[test]
    fn an_outcome_tells_of_every_step_that_was_taken_and_of_its_trace() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let at = |ms| Some(LogInstant::from_raw(ms));
        let steps = Steps { received: at(5), accepted: None, started: at(7), ended: at(9) };
        let what = ChangeKind::Command {
            command: CommandId::from_bytes([7; 16]),
            change: CommandChange::DeliveryEnded {
                trace: trace.parse().unwrap(),
                agent: "r1".parse().unwrap(),
                outcome: CommandOutcome::Succeeded { result: Vec::new() },
                seq: None,
                node: None,
                steps,
            },
        };
        let change = Change { at: LogInstant::from_raw(12), request: None, what };
        let events = command_events(&HistoryRecord { index: 3, term: 2, change });
        let told: Vec<(&str, u64)> = events.iter().map(|event| (event.kind.as_str(), event.at)).collect();
        assert_eq!(told, [("received", 5), ("started", 7), ("finished", 9), ("ended", 12)]);
        assert!(events.iter().all(|event| event.traceparent == trace && (event.index, event.term) == (3, 2)));
        assert_eq!(events[3].outcome, "succeeded");
    }
}
