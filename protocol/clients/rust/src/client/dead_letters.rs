//! Dead letters: tasks and commands that failed for good, and what an operator does about them.

use std::fmt::Display;

use skep_proto::{convert, v1};
use skep_protocol::command::{Command, CommandClass, CommandControl, CommandOutcome, ControlKind, Target, redriven};
use skep_protocol::ids::CommandId;
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{AgentId, Reason};
use skep_protocol::time::LogInstant;

use super::pages::pages;
use super::{Client, Read};
use crate::error::ClientError;

/// How many items the client asks for on each page.
const PAGE: u32 = 1_000;

/// The place where an operator's statement holds, and the key that signs it.
type By<'a> = (&'a Place, &'a OperatorSecret);

/// Why a command was not sent again, or stays on the list of dead letters.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// A robot may still do it.
    #[error("the command has not ended at all of its robots; wait, or cancel it")]
    Open,
    /// An operator has settled it.
    #[error("the command was redriven or discarded already")]
    Settled,
    /// The command that the node shows cannot be read.
    #[error("{0}")]
    Told(String),
    /// The client cannot sign the command.
    #[error("{0}")]
    Unsigned(String),
    /// The node did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command was sent again to all of its robots, but it may still be on the list.
    #[error("the command was sent again, and may still be a dead letter: {0}")]
    Kept(ClientError),
}

fn told(error: impl Display) -> RedriveError {
    RedriveError::Told(error.to_string())
}

fn unsigned(error: impl Display) -> RedriveError {
    RedriveError::Unsigned(error.to_string())
}

/// A task or a command that failed for good.
#[derive(Clone, Debug, PartialEq)]
pub enum DeadLetter {
    /// A task that has no attempts left.
    Task(Box<v1::Task>),
    /// A command that has ended at all of its robots, and failed at some.
    Command(Box<v1::CommandView>),
}

/// A command that has ended and that no operator has settled.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadCommand {
    id: CommandId,
    view: v1::CommandView,
}

impl DeadCommand {
    /// Reads the command of this id from what a node shows.
    ///
    /// # Errors
    /// [`RedriveError::Open`] or [`RedriveError::Settled`] if there is nothing to settle.
    pub fn of(id: CommandId, view: v1::CommandView) -> Result<Self, RedriveError> {
        if view.open > 0 {
            return Err(RedriveError::Open);
        }
        if view.discarded {
            return Err(RedriveError::Settled);
        }
        Ok(Self { id, view })
    }

    /// The command's id.
    pub fn id(&self) -> CommandId {
        self.id
    }

    /// The robots at which the command failed, each with its outcome.
    fn failed(&self) -> Result<Vec<(AgentId, CommandOutcome)>, RedriveError> {
        let mut failed = Vec::new();
        for of in &self.view.deliveries {
            let Some(outcome) = convert::outcome(of).map_err(told)?.filter(CommandOutcome::is_failure) else {
                continue;
            };
            failed.push((of.agent.parse().map_err(told)?, outcome));
        }
        Ok(failed)
    }

    /// The same command for one of its robots, under an id that is the same however often this is called.
    fn again(&self, robot: AgentId, deadline: LogInstant, (place, secret): By<'_>) -> Result<Command, RedriveError> {
        let first = self.view.command.clone().unwrap_or_default();
        Ok(Command {
            place: place.clone(),
            id: redriven(self.id, &robot),
            target: Target::Agent(robot),
            verb: first.verb.parse().map_err(told)?,
            content_type: first.content_type.parse().map_err(told)?,
            args: first.args.into(),
            deadline,
            class: if first.urgent { CommandClass::Urgent } else { CommandClass::Routine },
            idempotent: first.idempotent,
            supersedes: None,
            parent: Some(self.id),
            trace: first.traceparent.parse().map_err(told)?,
            waves: None,
            operator: secret.key(),
        })
    }
}

/// How a command is to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedriveTerms {
    /// How long from now robots may start it, in milliseconds.
    pub valid_ms: u64,
    /// Whether to send it also to robots where its outcome is indeterminate: these may do it twice.
    pub even_if_done: bool,
    /// The reason, for people.
    pub reason: Reason,
}

/// What sending a command again to one of its robots led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Resent {
    /// The shard accepted the command under this id, which an earlier attempt may have sent.
    Sent(CommandId),
    /// The shard may not have accepted the command under this id.
    Failed(CommandId, ClientError),
    /// The command was not sent: it is unknown whether the robot did it.
    Indeterminate,
}

impl Resent {
    /// Whether the robot is to do the command again.
    pub fn is_sent(&self) -> bool {
        matches!(self, Self::Sent(_))
    }

    /// Whether it is unknown if the robot is to do the command again.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Failed(_, ClientError::Unknown { .. }))
    }
}

impl Client {
    /// Hands each dead letter to `each`: the tasks, and then the commands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dead_letters(&self, mut each: impl FnMut(DeadLetter)) -> Result<(), ClientError> {
        let dead = [v1::TaskStatus::DeadLettered];
        let tasks = async |after: Vec<u8>| self.tasks(&dead, &after, PAGE, Read::Linearizable).await;
        let tell = |page: v1::ListTasksReply| {
            page.tasks.into_iter().for_each(|task| each(DeadLetter::Task(Box::new(task))));
        };
        pages(tasks, tell).await?;
        let commands = async |after: Vec<u8>| self.commands(&after, PAGE, Read::Linearizable).await;
        let is_dead = |view: &v1::CommandView| view.open == 0 && view.failed > 0 && !view.discarded;
        let tell = |page: v1::ListCommandsReply| {
            let dead = page.commands.into_iter().filter(is_dead);
            dead.for_each(|view| each(DeadLetter::Command(Box::new(view))));
        };
        pages(commands, tell).await
    }

    /// Sends a command again to each of its robots at which it failed, signed anew, and discards it once that is done.
    /// If some are left, the command stays on the list: it can be redriven again, and no robot is sent it twice while
    /// the shard holds what was sent. Returns for each robot what that led to.
    ///
    /// # Errors
    /// [`RedriveError`] if there is nothing to send, or the command could not be discarded.
    pub async fn redrive_command(
        &self,
        dead: &DeadCommand,
        terms: &RedriveTerms,
        by: (&Place, &OperatorSecret),
    ) -> Result<Vec<(AgentId, Resent)>, RedriveError> {
        let mut all = Vec::new();
        for (robot, outcome) in dead.failed()? {
            let may_be_done = matches!(outcome, CommandOutcome::Indeterminate { .. });
            let resent = if may_be_done && !terms.even_if_done {
                Resent::Indeterminate
            } else {
                let deadline = self.deadline_in(terms.valid_ms).await?;
                self.resend(dead.again(robot.clone(), deadline, by)?, by.1).await?
            };
            all.push((robot, resent));
        }
        if all.iter().all(|(_, resent)| resent.is_sent()) {
            let discarded = self.discard_command(dead.id, terms.reason.clone(), by).await;
            discarded.map_err(|error| match error {
                RedriveError::Client(error) => RedriveError::Kept(error),
                other => other,
            })?;
        }
        Ok(all)
    }

    async fn resend(&self, command: Command, secret: &OperatorSecret) -> Result<Resent, RedriveError> {
        let id = command.id;
        let signed = command.sign(secret).map_err(unsigned)?;
        Ok(match self.send_command(&signed).await {
            Ok(_) => Resent::Sent(id),
            // An earlier attempt sent it.
            Err(error) if error.is_already_there() => Resent::Sent(id),
            Err(error) => Resent::Failed(id, error),
        })
    }

    /// Takes a command off the list of dead letters.
    ///
    /// # Errors
    /// [`RedriveError`].
    pub async fn discard_command(
        &self,
        command: CommandId,
        reason: Reason,
        (place, secret): (&Place, &OperatorSecret),
    ) -> Result<(), RedriveError> {
        let (place, operator) = (place.clone(), secret.key());
        let control = CommandControl { place, command, what: ControlKind::Discard, reason, operator };
        self.control_command(&control.sign(secret).map_err(unsigned)?).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{Genesis, ShardId};

    use super::*;

    fn view(outcomes: &[(&str, &str)]) -> v1::CommandView {
        let delivery = |(agent, outcome): &(&str, &str)| v1::CommandDelivery {
            agent: (*agent).to_owned(),
            outcome: (*outcome).to_owned(),
            ..Default::default()
        };
        let command = Some(v1::Command { verb: "goto".to_owned(), urgent: true, ..Default::default() });
        v1::CommandView { command, deliveries: outcomes.iter().map(delivery).collect(), ..Default::default() }
    }

    fn id() -> CommandId {
        CommandId::from_bytes([7; 16])
    }

    #[test]
    fn a_command_is_dead_once_it_has_ended_everywhere_and_nobody_has_settled_it() {
        let open = v1::CommandView { open: 1, ..view(&[]) };
        assert!(matches!(DeadCommand::of(id(), open), Err(RedriveError::Open)));
        let settled = v1::CommandView { discarded: true, ..view(&[]) };
        assert!(matches!(DeadCommand::of(id(), settled), Err(RedriveError::Settled)));
    }

    #[test]
    fn only_robots_at_which_it_failed_are_sent_it_again_and_none_is_passed_over_for_a_word_that_is_not_known() {
        let all = [
            ("a", "succeeded"),
            ("b", "failed"),
            ("c", "rejected"),
            ("d", "expired"),
            ("e", "cancelled"),
            ("f", "superseded"),
            ("g", "indeterminate"),
        ];
        let dead = DeadCommand::of(id(), view(&all)).unwrap();
        let failed: Vec<String> = dead.failed().unwrap().into_iter().map(|(robot, _)| robot.to_string()).collect();
        assert_eq!(failed, ["b", "c", "d", "g"]);
        let newer = DeadCommand::of(id(), view(&[("b", "failed"), ("h", "postponed")])).unwrap();
        assert!(matches!(newer.failed(), Err(RedriveError::Told(_))));
    }

    #[test]
    fn a_robot_is_sent_the_same_command_under_the_same_id_however_often_it_is_made_again() {
        let dead = DeadCommand::of(id(), view(&[])).unwrap();
        let secret = OperatorSecret::from_seed(&[1; 32]);
        let place = Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) };
        let again = |robot: &str, deadline| {
            let deadline = LogInstant::from_raw(deadline);
            dead.again(robot.parse().unwrap(), deadline, (&place, &secret)).unwrap()
        };
        let (first, second) = (again("b", 10), again("b", 20));
        assert_eq!((first.id, first.parent), (second.id, Some(id())));
        assert_eq!((first.class, first.verb.as_str()), (CommandClass::Urgent, "goto"));
        assert_ne!(again("c", 10).id, first.id);
    }
}
