//! What is shown of dead letters.

use serde::Serialize;
use skep_client::v1;

use crate::cli::output::{Row, uuid_text};

#[derive(Serialize)]
pub(super) struct Line {
    id: String,
    kind: &'static str,
    what: String,
    target: String,
    why: String,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["id", "kind", "what", "target", "why"];
    fn cells(&self) -> Vec<String> {
        let Self { id, kind, what, target, why } = self;
        vec![id.clone(), (*kind).to_owned(), what.clone(), target.clone(), why.clone()]
    }
}

impl Line {
    pub(super) fn of_task(task: v1::Task) -> Self {
        Self {
            id: uuid_text(&task.id),
            kind: "task",
            what: task.spec.map(|spec| spec.title).unwrap_or_default(),
            target: String::new(),
            why: task.reason,
        }
    }

    pub(super) fn of_command(view: v1::CommandView) -> Self {
        let command = view.command.unwrap_or_default();
        let why = format!("failed at {} of {}", view.failed, view.agents);
        Self { id: uuid_text(&command.id), kind: "command", what: command.verb, target: command.target, why }
    }
}

/// What became of a command, or of its sending again to one robot.
#[derive(Serialize)]
pub(super) struct Settled {
    pub(super) command: String,
    pub(super) agent: String,
    pub(super) what: String,
}

impl Row for Settled {
    const COLUMNS: &'static [&'static str] = &["command", "agent", "what"];
    fn cells(&self) -> Vec<String> {
        vec![self.command.clone(), self.agent.clone(), self.what.clone()]
    }
}

impl Settled {
    pub(super) fn discarded(view: &v1::CommandView) -> Self {
        Self { command: id_text(view), agent: String::new(), what: "discarded".to_owned() }
    }
}

/// The id of a command.
pub(super) fn id_text(view: &v1::CommandView) -> String {
    uuid_text(&view.command.as_ref().map(|command| command.id.clone()).unwrap_or_default())
}
