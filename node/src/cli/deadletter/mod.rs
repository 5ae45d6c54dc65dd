//! `skep deadletter`: tasks and commands that failed for good, until an operator settles them.

mod view;

use std::time::Duration;

use clap::{Args, Subcommand};
use skep_client::{Client, ClientError, CommandId, DeadCommand, Read, RedriveError, RedriveTerms, v1};

use super::command::View;
use super::key::KeyPath;
use super::output::{parse_span, rows, uuid_bytes};
use super::resend::Resend;
use super::task;
use super::{Common, Failure};
use view::{Line, Settled};

#[derive(Debug, Subcommand)]
pub(crate) enum Deadletter {
    /// List tasks and commands that failed for good
    List,
    /// Show one dead letter
    Show {
        /// Id of the task or the command (UUID)
        id: String,
    },
    /// Do a dead letter again: a task with all its attempts; a command, signed anew, at the robots where it failed
    Redrive(Redrive),
    /// Take a dead letter off the list
    Discard {
        /// Id of the task or the command (UUID)
        id: String,
        /// Reason, for people
        #[arg(long, default_value = "discarded by an operator")]
        reason: String,
        #[command(flatten)]
        key: KeyPath,
        #[command(flatten)]
        resend: Resend,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Redrive {
    /// Id of the task or the command (UUID)
    id: String,
    /// For a command: how long robots may start it, such as 10s
    #[arg(long, value_parser = parse_span, default_value = "10s")]
    valid_for: Duration,
    /// For a command: also at robots where it is indeterminate; they may do it twice
    #[arg(long)]
    even_if_done: bool,
    /// Reason, for people
    #[arg(long, default_value = "redriven by an operator")]
    reason: String,
    #[command(flatten)]
    key: KeyPath,
    #[command(flatten)]
    resend: Resend,
}

/// The dead letter that an id names.
enum Letter {
    Task(Vec<u8>),
    Command(CommandId, Box<v1::CommandView>),
}

async fn find(client: &Client, id: &str) -> Result<Letter, Failure> {
    let bytes = uuid_bytes(id)?;
    let command: CommandId = id.parse().map_err(Failure::usage)?;
    match client.command(command, Read::Linearizable).await {
        Ok(reply) => Ok(Letter::Command(command, Box::new(reply.command.unwrap_or_default()))),
        Err(error) if error.is_not_found() => Ok(Letter::Task(bytes)),
        Err(error) => Err(error.into()),
    }
}

async fn list(client: &Client, common: &Common) -> Result<(), Failure> {
    let mut lines = Vec::new();
    client.dead_letters(|letter| lines.push(Line::of(letter))).await?;
    rows(common.output, &lines)
}

impl Deadletter {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        match self {
            Self::List => list(&client, common).await,
            Self::Show { id } => match find(&client, &id).await? {
                Letter::Task(task) => task::show(&client, common.output, &task).await,
                Letter::Command(_, view) => View::new(*view).print(common.output),
            },
            Self::Redrive(redrive) => redrive.run(&client, common).await,
            Self::Discard { id, reason, key, resend } => match find(&client, &id).await? {
                Letter::Task(task) => {
                    let discarded = resend.client(&client).await?.discard_task(&task, &reason).await?;
                    task::print_receipt(common.output, discarded)
                }
                Letter::Command(command, _) => {
                    let (secret, place) = key.for_shard(&client).await?;
                    let reason = reason.parse().map_err(Failure::usage)?;
                    resend.client(&client).await?.discard_command(command, reason, (&place, &secret)).await?;
                    rows(common.output, &[Settled::discarded(command)])
                }
            },
        }
    }
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Open | RedriveError::Told(_) => Self::failed(error),
            RedriveError::Settled => {
                Self::failed(error).advise("'skep command list' shows the commands that the shard holds")
            }
            RedriveError::Unsigned(_) => Self::usage(error),
            RedriveError::Client(error) => error.into(),
            RedriveError::Kept(error) => {
                Self::unknown(error, "give the same line again: a command that was sent is not sent twice")
            }
        }
    }
}

impl Redrive {
    async fn run(self, client: &Client, common: &Common) -> Result<(), Failure> {
        match find(client, &self.id).await? {
            Letter::Task(task) => {
                let redriven = self.resend.client(client).await?.redrive_task(&task, &self.reason).await;
                let redriven = redriven.map_err(|error| self.not_held(error))?;
                task::print_receipt(common.output, redriven)
            }
            Letter::Command(..) if self.resend.request_id.is_some() => Err(Failure::usage(
                "a command is redriven by several requests: leave --request-id out, and give the same line",
            )),
            Letter::Command(id, view) => self.command(client, common, DeadCommand::of(id, *view)?).await,
        }
    }

    /// The failure for a dead letter that the shard does not hold. Only the shard's command has what its robots were to
    /// do.
    fn not_held(&self, error: ClientError) -> Failure {
        let is_gone = error.is_not_found();
        let failure = Failure::from(error);
        if !is_gone {
            return failure;
        }
        failure.advise(&format!(
            "if it was a command, the shard does not hold it any more: send a new one; 'skep command watch {} --from 1' shows \
             what the history has of it",
            self.id
        ))
    }

    async fn command(&self, client: &Client, common: &Common, dead: DeadCommand) -> Result<(), Failure> {
        let (secret, place) = self.key.for_shard(client).await?;
        let terms = RedriveTerms {
            valid_ms: u64::try_from(self.valid_for.as_millis()).unwrap_or(u64::MAX),
            even_if_done: self.even_if_done,
            reason: self.reason.parse().map_err(Failure::usage)?,
        };
        let resent = client.redrive_command(&dead, &terms, (&place, &secret)).await?;
        let left = resent.iter().filter(|(_, resent)| !resent.is_sent()).count();
        let in_doubt = resent.iter().any(|(_, resent)| resent.is_in_doubt());
        let mut lines: Vec<Settled> = resent.into_iter().map(|(robot, resent)| Settled::at(&robot, resent)).collect();
        lines.extend((left == 0).then(|| Settled::discarded(dead.id())));
        rows(common.output, &lines)?;
        let still = format!("the command is still a dead letter at {left} robots");
        match (left, in_doubt) {
            (0, _) => Ok(()),
            (_, false) => Err(Failure::failed(still)),
            (_, true) => {
                let unknown = "it may have been sent again to some of them; give the same line again at once";
                Err(Failure::in_doubt(&self.id, format!("{still}: {unknown}")).sent_again_by(None))
            }
        }
    }
}
