//! `skep command send`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use skep_client::command::{Command, CommandClass, Target, Waves};
use skep_client::{Client, ClientError, Code, CommandId, CommandName, OperatorKey, Place, Read, convert, v1};

use super::view::{Receipt, View};
use super::{Common, Failure};
use crate::cli::follow::{AGAIN_AFTER, Outage, may_pass};
use crate::cli::key::KeyPath;
use crate::cli::output::{escaped, parse_span};
use crate::cli::resend::line_with;

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Id of the robot's agent
    #[arg(long, value_name = "AGENT", required_unless_present_any = ["group", "all"])]
    to: Option<String>,
    /// Group whose robots get the command
    #[arg(long, conflicts_with_all = ["to", "all"])]
    group: Option<String>,
    /// All robots that take commands; needs --yes-all, and a grant to broadcast
    #[arg(long, requires = "yes_all", conflicts_with = "to")]
    all: bool,
    /// Confirm --all
    #[arg(long)]
    yes_all: bool,
    /// Verb: what the robots are to do
    #[arg(long)]
    verb: String,
    /// Argument: NAME=TEXT, or NAME:=JSON for a number, true, a list and so on; repeat for more. Robots get one JSON
    /// object, with each value as it was typed
    #[arg(long = "arg", value_name = "NAME=TEXT")]
    args: Vec<String>,
    /// Arguments as plain text, in place of --arg
    #[arg(long, conflicts_with = "args")]
    data: Option<String>,
    /// Media type of --data
    #[arg(long, default_value = "text/plain", requires = "data")]
    content_type: String,
    /// How long robots may start the command, such as 10s. With --id the name says it
    #[arg(long, value_parser = parse_span, default_value = "10s")]
    valid_for: Duration,
    /// A robot that does not know whether it did the command may do it again
    #[arg(long)]
    idempotent: bool,
    /// Robots start the command beside whatever else they do
    #[arg(long)]
    urgent: bool,
    /// Id of a command (UUID) that robots do not start any more once this one is delivered to them
    #[arg(long, value_name = "COMMAND")]
    supersedes: Option<CommandId>,
    /// Id of the command (UUID) from which this one follows
    #[arg(long, value_name = "COMMAND")]
    parent: Option<CommandId>,
    /// Trace of the command: a W3C traceparent
    #[arg(long, env = "TRACEPARENT", default_value = "")]
    traceparent: String,
    /// Number of robots in a wave: 1 to 10000
    #[arg(long, value_name = "ROBOTS", requires = "every")]
    wave: Option<u32>,
    /// Delay before each wave, such as 2s: 10ms to 1h
    #[arg(long, value_parser = parse_span, requires = "wave")]
    every: Option<Duration>,
    /// Name of the command (UUID@DEADLINE), to send a command in doubt again: the error prints it. The shard accepts it
    /// once, and refuses it after its deadline. 'skep command id' makes a name for a first sending
    #[arg(long, value_name = "UUID@DEADLINE")]
    id: Option<CommandName>,
    /// Wait until the command has ended at all of its robots
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    key: KeyPath,
}

/// Arguments as a JSON object. Text stays text, whatever it looks like. JSON goes to the robots as it was typed, to the
/// last digit.
fn object(args: &[String]) -> Result<Vec<u8>, Failure> {
    let mut members = BTreeMap::new();
    for arg in args {
        let usage = || Failure::usage(format!("{arg:?} is not an argument; give NAME=TEXT or NAME:=JSON"));
        let (name, value) = arg.split_once('=').ok_or_else(usage)?;
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => (name, verbatim(name, value)?),
            None => (name, serde_json::to_string(value).map_err(Failure::failed)?),
        };
        if name.is_empty() {
            return Err(usage());
        }
        let name = serde_json::to_string(name).map_err(Failure::failed)?;
        if members.contains_key(&name) {
            return Err(Failure::usage(format!("argument {name} is given twice")));
        }
        members.insert(name, value);
    }
    let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
    Ok(format!("{{{}}}", members.join(",")).into_bytes())
}

/// Checks that a text is JSON, and gives it unchanged.
fn verbatim(name: &str, text: &str) -> Result<String, Failure> {
    let checked: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
    let why = |error: serde_json::Error| format!("{name}:={text} is not JSON: {error}; give {name}={text} for text");
    checked.map(|_| text.trim().to_owned()).map_err(|error| Failure::usage(why(error)))
}

/// The receipt of a command that the shard has already, if that is the wanted one. Its trace is that of the first
/// sending.
async fn accepted(
    client: &Client,
    id: CommandId,
    wanted: &v1::Command,
    refused: ClientError,
) -> Result<Receipt, Failure> {
    let view = client.command(id, Read::Linearizable).await?.command.unwrap_or_default();
    let known = view.command.unwrap_or_default();
    let same = v1::Command { traceparent: wanted.traceparent.clone(), ..known } == *wanted;
    if !same {
        return Err(Failure::from(refused).advise("that command differs from this one"));
    }
    Ok(Receipt { command: id.to_string(), agents: view.agents, open: view.open, index: view.index })
}

/// The failure for a command that was sent again after its deadline and that the shard does not hold. The shard may
/// never have accepted it; or the command has ended, and the shard has forgotten it since.
fn too_late(name: CommandName, refused: &ClientError) -> Failure {
    let CommandName { id, .. } = name;
    let refused = escaped(&refused.to_string()).into_owned();
    Failure::in_doubt(
        name,
        format!(
            "command {id} may have been accepted before, and it is too late to send it again: {refused}. The shard does not \
             hold it: 'skep command watch {id} --from 1' shows what the history has of it"
        ),
    )
}

/// Whether an error leaves open what became of an earlier sending: no shard that holds commands has answered.
fn says_nothing(error: &ClientError) -> bool {
    let of_commands = error.code().is_some_and(Code::is_of_statements);
    may_pass(error) && !of_commands
}

/// The failure for a command that the shard may have accepted: how to send it again. That is safe at any time, since
/// the deadline is a part of the name.
fn in_doubt(name: CommandName, error: &ClientError) -> Failure {
    let (id, error) = (name.id, escaped(&error.to_string()).into_owned());
    let message = format!(
        "command {id} may have been accepted: {error}; 'skep command show {id}' shows it if it was. Until its \
         deadline the same line with --id {name} sends it again, and the shard accepts it once"
    );
    let line = line_with(std::env::args_os(), "--id", &name.to_string());
    Failure::in_doubt(name, message).sent_again_by(line)
}

/// Waits until a command has ended at all of its robots, whatever happens to the node meanwhile.
async fn end(client: &Client, id: CommandId) -> Result<v1::CommandView, Failure> {
    let mut outage = Outage::default();
    loop {
        match client.command_end(id).await {
            Ok(view) => return Ok(view),
            Err(error) if may_pass(&error) => outage.began(&error.to_string()),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The milliseconds of a duration.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A name for a new command that robots may start for so long.
pub(super) async fn new_name(client: &Client, valid_for: Duration) -> Result<CommandName, Failure> {
    if valid_for.is_zero() {
        return Err(Failure::usage("--valid-for is zero: no robot could start the command; give at least 1ms"));
    }
    let id = CommandId::from_bytes(uuid::Uuid::now_v7().into_bytes());
    Ok(CommandName { id, deadline: client.deadline_in(ms(valid_for)).await? })
}

impl Send {
    fn target(&self) -> Result<Target, Failure> {
        match (&self.to, &self.group) {
            (Some(agent), _) => agent.parse().map(Target::Agent).map_err(Failure::usage),
            (None, Some(group)) => group.parse().map(Target::Group).map_err(Failure::usage),
            (None, None) => Ok(Target::All),
        }
    }

    /// The command to send. A command that is sent again is the same in all that the shard compares, its deadline too.
    async fn command(&self, client: &Client, place: Place, operator: OperatorKey) -> Result<Command, Failure> {
        let (content_type, args) = match (&self.data, self.args.is_empty()) {
            (Some(data), _) => (self.content_type.clone(), data.clone().into_bytes()),
            (None, true) => (String::new(), Vec::new()),
            (None, false) => ("application/json".to_owned(), object(&self.args)?),
        };
        let name = match self.id {
            Some(name) => name,
            None => new_name(client, self.valid_for).await?,
        };
        let waves = self.wave.zip(self.every).map(|(agents, every)| Waves { agents, every_ms: ms(every) });
        let command = Command {
            place,
            id: name.id,
            target: self.target()?,
            verb: self.verb.parse().map_err(Failure::usage)?,
            content_type: content_type.parse().map_err(Failure::usage)?,
            args: args.into(),
            deadline: name.deadline,
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
        // This is a round through the leader, which takes nothing from how long the command is valid.
        let (secret, place) = self.key.for_shard(client).await?;
        let command = self.command(client, place, secret.key()).await?;
        let name = CommandName { id: command.id, deadline: command.deadline };
        let (id, wanted) = (name.id, convert::command_to_proto(&command));
        let again = self.id.is_some();
        let receipt = match client.send_command(&command.sign(&secret).map_err(Failure::usage)?).await {
            Ok(receipt) => Receipt::from(receipt),
            // The shard accepted an earlier sending.
            Err(error) if again && error.is_already_there() => accepted(client, id, &wanted, error).await?,
            Err(error) if again && error.is_past_its_deadline() => return Err(too_late(name, &error)),
            Err(error) if again && says_nothing(&error) => return Err(in_doubt(name, &error)),
            Err(error @ ClientError::Unknown { .. }) if !error.is_of_a_query() => return Err(in_doubt(name, &error)),
            Err(error) => return Err(error.into()),
        };
        if !self.wait {
            return receipt.print(common.output);
        }
        let view = View::new(end(client, id).await?);
        view.print(common.output)?;
        match view.deliveries.iter().filter(|of| of.outcome != "succeeded").count() {
            0 => Ok(()),
            1 if view.deliveries.len() == 1 => {
                Err(Failure::failed(escaped(&format!("it {}", view.deliveries[0].said()))))
            }
            failed => {
                Err(Failure::failed(format!("the command did not succeed at {failed} of {}", view.deliveries.len())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(args: &[&str]) -> Result<String, Failure> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        object(&args).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_typed_reaches_the_robot_as_it_was_typed() {
        // ros2/ros2cli#862
        let typed =
            ["v=1.10", "e=1e5", "big=12345678901234567890123", "q=\"no\"", "t=true", "z=007", "none=", "eq=a=b"];
        let sent: serde_json::Value = serde_json::from_str(&told(&typed).unwrap()).unwrap();
        for arg in typed {
            let (name, text) = arg.split_once('=').unwrap();
            assert_eq!(sent[name], text, "{arg}");
        }
        let json =
            ["v:=1.10", "e:=1e5", "big:=12345678901234567890123", "q:=\"no\"", "t:= true ", "l:=[1,{\"a\":0.50}]"];
        let sent = told(&json).unwrap();
        let expected = r#"{"big":12345678901234567890123,"e":1e5,"l":[1,{"a":0.50}],"q":"no","t":true,"v":1.10}"#;
        assert_eq!(sent, expected);
    }

    #[test]
    fn an_argument_that_is_none_is_refused() {
        for bad in [&["x"][..], &["=1"], &[":=1"], &["x:=one"], &["x:=1 2"], &["x:="], &["x=1", "x:=2"]] {
            assert!(told(bad).is_err(), "{bad:?}");
        }
    }
}
