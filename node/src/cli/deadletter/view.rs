//! How the command line shows dead letters.

use serde::Serialize;
use skep_client::{CommandId, DeadLetter, Resent, v1};
use skep_protocol::text::AgentId;

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
    pub(super) fn of(letter: DeadLetter) -> Self {
        match letter {
            DeadLetter::Task(task) => Self::of_task(*task),
            DeadLetter::Command(view) => Self::of_command(*view),
        }
    }

    fn of_task(task: v1::Task) -> Self {
        Self {
            id: uuid_text(&task.id),
            kind: "task",
            what: task.spec.map(|spec| spec.title).unwrap_or_default(),
            target: String::new(),
            why: task.reason,
        }
    }

    fn of_command(view: v1::CommandView) -> Self {
        let command = view.command.unwrap_or_default();
        let why = format!("failed at {} of {}", view.failed, view.agents);
        Self { id: uuid_text(&command.id), kind: "command", what: command.verb, target: command.target, why }
    }
}

/// What became of a command, or of the new sending to one robot.
#[derive(Serialize)]
pub(super) struct Settled {
    command: String,
    agent: String,
    what: String,
}

impl Row for Settled {
    const COLUMNS: &'static [&'static str] = &["command", "agent", "what"];
    fn cells(&self) -> Vec<String> {
        vec![self.command.clone(), self.agent.clone(), self.what.clone()]
    }
}

impl Settled {
    pub(super) fn discarded(command: CommandId) -> Self {
        Self { command: command.to_string(), agent: String::new(), what: "discarded".to_owned() }
    }

    pub(super) fn at(robot: &AgentId, resent: Resent) -> Self {
        let (command, what) = match resent {
            Resent::Sent(id) => (id.to_string(), "sent again".to_owned()),
            Resent::Failed(id, why) => (id.to_string(), why.to_string()),
            Resent::Indeterminate => {
                (String::new(), "the robot may have done it: resolve it, or give --even-if-done".to_owned())
            }
        };
        Self { command, agent: robot.to_string(), what }
    }
}
