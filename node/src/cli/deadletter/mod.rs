//! `skep deadletter`: work and commands that failed for good, until somebody settles them.

mod view;

use std::time::Duration;

use clap::{Args, Subcommand};
use skep_client::command::{CommandOrder, OrderKind, SignedOrder};
use skep_client::{Client, ClientError, CommandId, Read, RedriveError, TaskStatus, pages, v1};

use super::as_of::PAGE;
use super::command::View;
use super::key::KeyPath;
use super::output::{parse_span, rows, uuid_bytes};
use super::resend::Resend;
use super::task;
use super::{Common, Failure};
use view::{Line, Settled, id_text};

#[derive(Debug, Subcommand)]
pub(crate) enum Deadletter {
    /// List tasks and commands that failed for good
    List,
    /// Show one of them
    Show {
        /// Id of the task or the command (UUID)
        id: String,
    },
    /// Do it again: a task with all its attempts; a command, signed anew, at the robots where it failed
    Redrive(Redrive),
    /// Take it off the list
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

/// What an id names.
enum Letter {
    Task(Vec<u8>),
    Command(Box<v1::CommandView>),
}

async fn find(client: &Client, id: &str) -> Result<Letter, Failure> {
    let bytes = uuid_bytes(id)?;
    let command: CommandId = id.parse().map_err(Failure::usage)?;
    match client.command(command, Read::Linearizable).await {
        Ok(reply) => Ok(Letter::Command(Box::new(reply.command.unwrap_or_default()))),
        Err(error) if error.is_not_found() => Ok(Letter::Task(bytes)),
        Err(error) => Err(error.into()),
    }
}

async fn list(client: &Client, common: &Common) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let tasks =
        async |after: Vec<u8>| client.tasks(&[TaskStatus::DeadLettered], &after, PAGE, Read::Linearizable).await;
    pages(tasks, |page: v1::ListTasksReply| lines.extend(page.tasks.into_iter().map(Line::of_task))).await?;
    let commands = async |after: Vec<u8>| client.commands(&after, PAGE, Read::Linearizable).await;
    let dead = |view: &v1::CommandView| view.open == 0 && view.failed > 0 && !view.discarded;
    let add = |page: v1::ListCommandsReply| {
        lines.extend(page.commands.into_iter().filter(dead).map(Line::of_command));
    };
    pages(commands, add).await?;
    rows(common.output, &lines)
}

impl Deadletter {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        match self {
            Self::List => list(&client, common).await,
            Self::Show { id } => match find(&client, &id).await? {
                Letter::Task(task) => task::show(&client, common.output, &task).await,
                Letter::Command(view) => View::new(*view).print(common.output),
            },
            Self::Redrive(redrive) => redrive.run(&client, common).await,
            Self::Discard { id, reason, key, resend } => match find(&client, &id).await? {
                Letter::Task(task) => {
                    let discarded = resend.client(&client).await?.discard_task(&task, &reason).await?;
                    task::print_receipt(common.output, discarded)
                }
                Letter::Command(view) => {
                    let order = order(&client, &view, &reason, &key).await?;
                    resend.client(&client).await?.order_command(&order).await?;
                    rows(common.output, &[Settled::discarded(&view)])
                }
            },
        }
    }
}

/// The signed order to discard a command.
async fn order(client: &Client, view: &v1::CommandView, reason: &str, key: &KeyPath) -> Result<SignedOrder, Failure> {
    let (secret, place) = key.for_shard(client).await?;
    let command = id_text(view);
    let order = CommandOrder {
        place,
        command: command.parse().map_err(Failure::failed)?,
        what: OrderKind::Discard,
        reason: reason.parse().map_err(Failure::usage)?,
        operator: secret.key(),
    };
    order.sign(&secret).map_err(Failure::usage)
}

impl From<RedriveError> for Failure {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Told(_) => Self::failed(error),
            RedriveError::Unsigned(_) => Self::usage(error),
            RedriveError::Client(error) => error.into(),
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
            Letter::Command(_) if self.resend.request_id.is_some() => Err(Failure::usage(
                "a command is redriven by several requests: leave --request-id out, and give the same line",
            )),
            Letter::Command(view) => self.command(client, common, *view).await,
        }
    }

    /// What is said of a letter that is not there. What a command was to do is kept with the command alone.
    fn not_held(&self, error: ClientError) -> Failure {
        let is_gone = error.is_not_found();
        let failure = Failure::from(error);
        if !is_gone {
            return failure;
        }
        failure.advise(&format!(
            "if it was a command, the shard holds it no more: send a new one; 'skep command watch {} --from 1' tells what the \
             history has of it",
            self.id
        ))
    }

    async fn command(&self, client: &Client, common: &Common, view: v1::CommandView) -> Result<(), Failure> {
        if view.open > 0 {
            return Err(Failure::failed("it has not ended at all of its robots; wait, or cancel it"));
        }
        if view.discarded {
            return Err(Failure::failed(
                "it was redriven or discarded already; 'skep command list' shows what there is",
            ));
        }
        let dead = |of: &&v1::CommandDelivery| {
            matches!(of.outcome.as_str(), "failed" | "rejected" | "expired" | "indeterminate")
        };
        let (secret, place) = self.key.for_shard(client).await?;
        let parent: CommandId = self.id.parse().map_err(Failure::usage)?;
        let valid_ms = u64::try_from(self.valid_for.as_millis()).unwrap_or(u64::MAX);
        let (mut lines, mut left, mut in_doubt) = (Vec::new(), 0, false);
        for of in view.deliveries.iter().filter(dead) {
            let (command, what) = if of.outcome == "indeterminate" && !self.even_if_done {
                left += 1;
                (String::new(), "nobody knows whether it was done: resolve it, or give --even-if-done".to_owned())
            } else {
                let sending = client.redrive_command((parent, &view), &of.agent, valid_ms, (&place, &secret));
                let (id, sent) = sending.await?;
                left += usize::from(sent.is_err());
                in_doubt |= matches!(sent, Err(ClientError::Unknown { .. }));
                (id.to_string(), sent.map_or_else(|why| why.to_string(), |()| "sent again".to_owned()))
            };
            lines.push(Settled { command, agent: of.agent.clone(), what });
        }
        // What is left keeps the letter: it can be redriven again, and nobody is sent it twice while the shard holds what was
        // sent.
        if left == 0 {
            let order = order(client, &view, &self.reason, &self.key).await?;
            let again = "give the same line again: what was sent is not sent twice";
            client.order_command(&order).await.map_err(|error| Failure::unknown(error, again))?;
            lines.push(Settled::discarded(&view));
        }
        rows(common.output, &lines)?;
        let still = format!("it is still a dead letter of {left} robots");
        match (left, in_doubt) {
            (0, _) => Ok(()),
            (_, false) => Err(Failure::failed(still)),
            (_, true) => {
                let unknown =
                    "nobody knows whether it was sent again to each of them; give the same line again at once";
                Err(Failure::in_doubt(&self.id, format!("{still}: {unknown}")).sent_again_by(None))
            }
        }
    }
}
