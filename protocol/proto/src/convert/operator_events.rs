//! The changes of operators, as watchers are told them.

use skep_protocol::change::{ChangeKind, ShardChange};
use skep_protocol::history::HistoryRecord;
use skep_protocol::operator::OperatorChange;

use super::operator_to_proto;
use crate::v1;

/// The event of a change of operators; none if the change is not about operators. A command that was refused is an
/// event of that command.
pub fn operator_event(record: &HistoryRecord) -> Option<v1::OperatorEvent> {
    let event = |kind: &str| v1::OperatorEvent {
        kind: kind.to_owned(),
        index: record.index,
        term: record.term,
        clock: record.change.at.raw(),
        ..v1::OperatorEvent::default()
    };
    let told = match &record.change.what {
        ChangeKind::Operator(OperatorChange::Granted { grant }) => v1::OperatorEvent {
            operator: grant.operator.to_string(),
            name: grant.name.to_string(),
            by: grant.by.to_string(),
            serial: grant.serial,
            granted: Some(operator_to_proto(grant)),
            ..event(if grant.revoked { "revoked" } else { "granted" })
        },
        ChangeKind::Operator(OperatorChange::Forgotten { operator, name, serial }) => v1::OperatorEvent {
            operator: operator.to_string(),
            name: name.to_string(),
            serial: *serial,
            ..event("forgotten")
        },
        ChangeKind::Operator(OperatorChange::FirstReplaced { old, new }) => {
            v1::OperatorEvent { operator: new.to_string(), by: old.to_string(), ..event("replaced-first") }
        }
        ChangeKind::Operator(OperatorChange::Refused { by, command: None, why }) => {
            v1::OperatorEvent { by: by.to_string(), detail: why.to_string(), ..event("refused") }
        }
        ChangeKind::Shard(ShardChange::Recovered { by, .. }) => {
            v1::OperatorEvent { operator: by.to_string(), by: by.to_string(), ..event("recovered") }
        }
        _ => return None,
    };
    Some(told)
}

#[cfg(test)]
mod tests {
    use skep_protocol::change::Change;
    use skep_protocol::ids::{CommandId, TaskId};
    use skep_protocol::operator::OperatorRefusal;
    use skep_protocol::refusal::Refusal;
    use skep_protocol::signing::OperatorKey;
    use skep_protocol::task::TaskChange;
    use skep_protocol::time::LogInstant;

    use super::*;

    fn told(what: ChangeKind) -> Option<v1::OperatorEvent> {
        let change = Change { at: LogInstant::from_raw(12), request: None, what };
        operator_event(&HistoryRecord { index: 3, term: 2, change })
    }

    #[test]
    fn whom_the_shard_forgot_is_told_with_name_and_number() {
        let operator = OperatorKey::from_bytes([7; 32]);
        let event = told(ChangeKind::Operator(OperatorChange::Forgotten {
            operator,
            name: "clerk".parse().unwrap(),
            serial: 9,
        }))
        .unwrap();
        assert_eq!((event.kind.as_str(), event.name.as_str(), event.serial), ("forgotten", "clerk", 9));
        assert_eq!((event.operator, event.by.as_str()), (operator.to_string(), ""));
        assert_eq!((event.index, event.term, event.clock), (3, 2, 12));
    }

    #[test]
    fn a_refused_statement_is_told_and_a_refused_command_is_not() {
        let by = OperatorKey::from_bytes([7; 32]);
        let refused = |command: Option<CommandId>| {
            told(ChangeKind::Operator(OperatorChange::Refused {
                by,
                command,
                why: Box::new(Refusal::from(OperatorRefusal::WrongPlace)),
            }))
        };
        let event = refused(None).unwrap();
        assert_eq!((event.kind.as_str(), event.by), ("refused", by.to_string()));
        assert!(!event.detail.is_empty());
        assert_eq!(refused(Some(CommandId::from_bytes([1; 16]))), None);
        assert_eq!(told(ChangeKind::Task { task: TaskId::from_bytes([1; 16]), change: TaskChange::Expired }), None);
    }
}
