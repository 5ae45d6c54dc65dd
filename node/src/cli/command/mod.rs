//! `skep command`

mod send;
mod view;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;
use skep_client::command::{CommandControl, ControlKind};
use skep_client::{Client, CommandId, Read, pages, v1};

use super::as_of::{AsOf, PAGE, Pages};
use super::follow::follow;
use super::key::KeyPath;
use super::output::{one, parse_span};
use super::resend::Resend;
use super::{Common, Failure};
pub(crate) use view::View;
use view::{Line, Receipt, Step};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a command to robots
    Send(send::Send),
    /// Make a name (UUID@DEADLINE) for a command that is still to be sent: 'send --id' with it is accepted once
    Id {
        /// How long from now robots may start it, such as 10s
        #[arg(long, value_parser = parse_span, default_value = "10s")]
        valid_for: Duration,
    },
    /// Show the life of a command at each of its robots
    Show {
        /// Id of the command (UUID)
        command: CommandId,
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// List the commands that the shard holds
    List {
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Follow what happens to commands, until Ctrl-C
    Watch {
        /// Id of the command (UUID) [default: all commands]
        command: Option<CommandId>,
        /// Only steps at the agent with this id, and of whole commands; all agents if empty
        #[arg(long, default_value = "")]
        agent: String,
        /// First log index to print [default: only what is new]
        #[arg(long)]
        from: Option<u64>,
    },
    /// Cancel a command: robots that have not started it will not start it
    Cancel(ControlArgs),
    /// Abort a command: it is released to no more robots; robots that have it go on
    Abort(ControlArgs),
    /// Resolve a command at a robot where it is indeterminate: state whether it was done there
    Resolve {
        #[command(flatten)]
        control: ControlArgs,
        /// Id of the robot's agent
        #[arg(long)]
        agent: String,
        /// The robot did it
        #[arg(long, conflicts_with = "not_done", required_unless_present = "not_done")]
        done: bool,
        /// The robot did not do it
        #[arg(long)]
        not_done: bool,
    },
}

/// A name that was made.
#[derive(Serialize)]
struct Named<'a> {
    id: &'a str,
}

/// What an operator wants of a command that was sent.
#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    /// Id of the command (UUID)
    command: CommandId,
    /// Reason, for people
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    key: KeyPath,
    #[command(flatten)]
    resend: Resend,
}

impl ControlArgs {
    async fn carry_out(self, client: &Client, common: &Common, what: ControlKind) -> Result<(), Failure> {
        let (secret, place) = self.key.for_shard(client).await?;
        let control = CommandControl {
            place,
            command: self.command,
            what,
            reason: self.reason.parse().map_err(Failure::usage)?,
            operator: secret.key(),
        };
        let signed = control.sign(&secret).map_err(Failure::usage)?;
        let receipt = self.resend.client(client).await?.control_command(&signed).await?;
        Receipt::from(receipt).print(common.output)
    }
}

impl Command {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let read = |stale| if stale { Read::Stale } else { Read::Linearizable };
        match self {
            Self::Send(send) => send.run(&client, common).await,
            Self::Id { valid_for } => {
                let id = send::new_name(&client, valid_for).await?.to_string();
                one(common.output, &Named { id: &id }, &[("id", id.clone())])
            }
            Self::Show { command, stale } => {
                let reply = client.command(command, read(stale)).await?;
                let as_of = AsOf::from(reply.as_of);
                View::of_replica(reply.command.unwrap_or_default(), as_of).print(common.output)?;
                as_of.say(common.output);
                Ok(())
            }
            Self::Watch { command, agent, from } => {
                let client = common.watcher()?;
                let open = async |from| client.watch_commands(command, &agent, Some(from)).await;
                let print = |event| Step::new(event).print(common.output);
                follow(&client, from, open, |event| event.index, print).await
            }
            Self::List { stale } => {
                let mut listed = Pages::new();
                let ask = async |after: Vec<u8>| client.commands(&after, PAGE, read(stale)).await;
                let add =
                    |page: v1::ListCommandsReply| listed.add(page.as_of, page.commands.into_iter().map(Line::new));
                pages(ask, add).await?;
                listed.print(common.output, "commands")
            }
            Self::Cancel(control) => control.carry_out(&client, common, ControlKind::Cancel).await,
            Self::Abort(control) => control.carry_out(&client, common, ControlKind::Abort).await,
            Self::Resolve { control, agent, done, not_done: _ } => {
                let agent = agent.parse().map_err(Failure::usage)?;
                control.carry_out(&client, common, ControlKind::Resolve { agent, done }).await
            }
        }
    }
}

impl Receipt {
    fn print(&self, format: super::output::Format) -> Result<(), Failure> {
        let lines = [
            ("command", self.command.clone()),
            ("agents", self.agents.to_string()),
            ("open", self.open.to_string()),
            ("index", self.index.to_string()),
        ];
        one(format, self, &lines)
    }
}
