//! `skep command send`

use std::time::Duration;

use clap::Args;
use skep_client::command::{Command, CommandClass, Target, Waves};
use skep_client::{Client, CommandId, OperatorKey};

use super::views::{Receipt, View};
use super::{Common, Failure};
use crate::cli::key::KeyPath;
use crate::cli::output::parse_span;

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The robot
    #[arg(long, value_name = "AGENT", required_unless_present_any = ["group", "all"])]
    to: Option<String>,
    /// All robots of a group
    #[arg(long, conflicts_with_all = ["to", "all"])]
    group: Option<String>,
    /// All robots that take commands; needs --yes-all, and a grant of its own
    #[arg(long, requires = "yes_all", conflicts_with = "to")]
    all: bool,
    /// Yes, all of them
    #[arg(long)]
    yes_all: bool,
    /// What to do
    #[arg(long)]
    verb: String,
    /// An argument; repeat for more. Sent as one JSON object
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// The arguments as they are, in place of --arg
    #[arg(long, conflicts_with = "args")]
    data: Option<String>,
    /// What sort of bytes --data is
    #[arg(long, default_value = "text/plain", requires = "data")]
    content_type: String,
    /// No robot starts it after this long
    #[arg(long, value_parser = parse_span, default_value = "10s")]
    valid_for: Duration,
    /// A robot that does not know whether it did it may do it again
    #[arg(long)]
    idempotent: bool,
    /// It begins whatever else is being done
    #[arg(long)]
    urgent: bool,
    /// A command that is not to be started any more where this one is delivered
    #[arg(long, value_name = "COMMAND")]
    supersedes: Option<CommandId>,
    /// The command that this one came from
    #[arg(long, value_name = "COMMAND")]
    parent: Option<CommandId>,
    /// The trace that it belongs to (W3C trace context)
    #[arg(long, env = "TRACEPARENT", default_value = "")]
    traceparent: String,
    /// Let it out to so many robots at a time
    #[arg(long, value_name = "ROBOTS", requires = "every")]
    wave: Option<u32>,
    /// Between two waves, and before the first
    #[arg(long, value_parser = parse_span, requires = "wave")]
    every: Option<Duration>,
    /// The id of a command that was sent already, to send it again
    #[arg(long)]
    id: Option<CommandId>,
    /// Wait until it has ended at all of its robots
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    key: KeyPath,
}

/// Milliseconds of a duration.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Send {
    fn target(&self) -> Result<Target, Failure> {
        match (&self.to, &self.group) {
            (Some(agent), _) => agent.parse().map(Target::Agent).map_err(Failure::usage),
            (None, Some(group)) => group.parse().map(Target::Group).map_err(Failure::usage),
            (None, None) => Ok(Target::All),
        }
    }

    /// The arguments as a JSON object. What is a number or a truth value there is one here.
    fn json(&self) -> Result<Vec<u8>, Failure> {
        let mut object = serde_json::Map::new();
        for arg in &self.args {
            let usage = || Failure::usage(format!("{arg:?} is no argument; give NAME=VALUE"));
            let (name, value) = arg.split_once('=').ok_or_else(usage)?;
            let parsed = serde_json::from_str(value).ok().filter(|value: &serde_json::Value| !value.is_string());
            let value = parsed.unwrap_or_else(|| value.into());
            if object.insert(name.to_owned(), value).is_some() {
                return Err(Failure::usage(format!("argument {name:?} is given twice")));
            }
        }
        serde_json::to_vec(&object).map_err(Failure::failed)
    }

    async fn command(&self, client: &Client, operator: OperatorKey) -> Result<Command, Failure> {
        let (content_type, args) = match (&self.data, self.args.is_empty()) {
            (Some(data), _) => (self.content_type.clone(), data.clone().into_bytes()),
            (None, true) => (String::new(), Vec::new()),
            (None, false) => ("application/json".to_owned(), self.json()?),
        };
        if self.valid_for.is_zero() {
            return Err(Failure::usage("--valid-for is zero: no robot could start it; give at least 1ms"));
        }
        let waves = self.wave.zip(self.every).map(|(agents, every)| Waves { agents, every_ms: ms(every) });
        let command = Command {
            site: client.node_status().await?.site.parse().map_err(Failure::failed)?,
            shard: client.shard(),
            id: self.id.unwrap_or_else(|| CommandId::from_bytes(uuid::Uuid::now_v7().into_bytes())),
            target: self.target()?,
            verb: self.verb.parse().map_err(Failure::usage)?,
            content_type: content_type.parse().map_err(Failure::usage)?,
            args,
            deadline: client.deadline_in(ms(self.valid_for)).await?,
            class: if self.urgent { CommandClass::Urgent } else { CommandClass::Routine },
            idempotent: self.idempotent,
            supersedes: self.supersedes,
            parent: self.parent,
            trace: self.traceparent.parse().map_err(Failure::usage)?,
            waves,
            operator,
        };
        command.check().map_err(Failure::usage)?;
        Ok(command)
    }

    pub(super) async fn run(self, client: &Client, common: &Common) -> Result<(), Failure> {
        let secret = self.key.load()?;
        let command = self.command(client, secret.key()).await?;
        let id = command.id;
        let receipt = client.send_command(&command.sign(&secret).map_err(Failure::usage)?).await?;
        if !self.wait {
            return Receipt::from(receipt).print(common.output);
        }
        let view = View::new(client.command_end(id).await?);
        view.print(common.output)?;
        match view.deliveries.iter().filter(|of| of.outcome != "succeeded").count() {
            0 => Ok(()),
            1 if view.deliveries.len() == 1 => Err(Failure::failed(format!("it {}", view.deliveries[0].said()))),
            failed => Err(Failure::failed(format!("it did not succeed at {failed} of {}", view.deliveries.len()))),
        }
    }
}
