//! How the command line shows operators.

use serde::Serialize;
use skep_client::v1::{OperatorEvent, OperatorView};
use skep_protocol::time::LogInstant;

use crate::cli::Failure;
use crate::cli::output::{Format, Row, json_line, print};

#[derive(Serialize)]
pub(super) struct View {
    operator: String,
    name: String,
    serial: u64,
    revoked: bool,
    /// The key that stated this; the operator's own key if it is the first operator.
    by: String,
    /// What the operator may do; nothing if it is revoked, whatever the statement says.
    #[serde(flatten)]
    may: Option<May>,
}

#[derive(Serialize)]
struct May {
    /// The verbs that it may send; empty for any.
    verbs: Vec<String>,
    /// The targets that it may command; empty for any.
    targets: Vec<String>,
    broadcast: bool,
    /// The most commands in a minute; none for no limit.
    per_minute: Option<u32>,
    /// The number of levels of operators to which it may grant something; 0 for none.
    admin_depth: u32,
    /// When the grant ends, on the shard's clock in milliseconds; 0 for no end.
    until: u64,
}

impl May {
    fn cells(&self) -> [String; 6] {
        let any = |names: &[String]| if names.is_empty() { "any".to_owned() } else { names.join(",") };
        let until = Some(self.until).filter(|until| *until > 0).map(LogInstant::from_raw);
        [
            any(&self.verbs),
            any(&self.targets),
            if self.broadcast { "yes".to_owned() } else { String::new() },
            self.per_minute.map(|count| count.to_string()).unwrap_or_default(),
            Some(self.admin_depth).filter(|depth| *depth > 0).map(|depth| depth.to_string()).unwrap_or_default(),
            until.map(|at| at.to_string()).unwrap_or_default(),
        ]
    }
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["operator", "name", "verbs", "targets", "all at once", "a minute", "admin", "until", "revoked", "by"];
    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.operator.clone(), self.name.clone()];
        cells.extend(self.may.as_ref().map(May::cells).unwrap_or_default());
        cells.extend([if self.revoked { "yes".to_owned() } else { String::new() }, self.by.clone()]);
        cells
    }
}

impl From<OperatorView> for View {
    fn from(view: OperatorView) -> Self {
        let OperatorView {
            operator,
            name,
            serial,
            verbs,
            targets,
            broadcast,
            per_minute,
            admin_depth,
            revoked,
            until,
            by,
        } = view;
        let may = May { verbs, targets, broadcast, per_minute, admin_depth, until };
        Self { operator, name, serial, revoked, by, may: (!revoked).then_some(may) }
    }
}

/// What changed of an operator.
#[derive(Serialize)]
pub(super) struct Told {
    kind: String,
    operator: String,
    name: String,
    by: String,
    serial: u64,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<View>,
    index: u64,
    term: u64,
    clock: u64,
}

impl From<OperatorEvent> for Told {
    fn from(event: OperatorEvent) -> Self {
        let OperatorEvent { kind, index, term, clock, operator, name, by, serial, detail, granted } = event;
        Self { kind, operator, name, by, serial, detail, granted: granted.map(View::from), index, term, clock }
    }
}

impl Told {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        if format == Format::Table { print(&self.line()) } else { json_line(self) }
    }

    fn line(&self) -> String {
        let mut line = self.kind.clone();
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                line.push_str(&format!(" {name}{value}"));
            }
        };
        add("", &self.operator);
        add("named ", &self.name);
        add("by ", &self.by);
        add("because ", &self.detail);
        add("serial ", &Some(self.serial).filter(|serial| *serial > 0).map(|n| n.to_string()).unwrap_or_default());
        add("· index ", &self.index.to_string());
        add("term ", &self.term.to_string());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_operator_that_was_forgotten_says_which_and_where_it_stands() {
        let event = OperatorEvent {
            kind: "forgotten".to_owned(),
            operator: "KEY".to_owned(),
            name: "clerk".to_owned(),
            serial: 9,
            index: 70,
            term: 2,
            ..OperatorEvent::default()
        };
        assert_eq!(Told::from(event).line(), "forgotten KEY named clerk serial 9 · index 70 term 2");
    }
}
