//! An operator of a testnet: it signs commands and follows them to their ends.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_client::command::{Command, CommandClass, SignedCommand, Target, Waves};
use skep_client::{Client, ClientError, CommandId, OperatorSecret, Read, v1};

use crate::error::LaunchError;
use crate::record::boot_ns;
use crate::site::launch::Testnet;

/// How long a command is sent again while its outcome is unknown.
const SEND_MAX: Duration = Duration::from_secs(60);
/// Wait before a command is sent again.
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often the operator checks whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An operator with a key of its own.
pub(crate) struct Operator {
    secret: OperatorSecret,
    clients: Vec<Client>,
    /// The arguments of all its commands.
    args: Vec<u8>,
}

/// A command that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) id: CommandId,
    /// When its first sending began, on the boot clock, in nanoseconds.
    pub(crate) at_ns: u64,
    pub(crate) valid_ms: u64,
    /// How many agents it is for.
    pub(crate) agents: usize,
}

/// A command that an operator is to send.
pub(crate) struct ToSend<'a> {
    pub(crate) target: &'a str,
    pub(crate) is_group: bool,
    pub(crate) verb: &'a str,
    pub(crate) valid: Duration,
    pub(crate) waves: Option<Waves>,
}

fn invalid(what: impl std::fmt::Display) -> LaunchError {
    LaunchError::Command { command: "a command for robots".to_owned(), output: what.to_string() }
}

impl Operator {
    /// The first operator of a testnet, through these clients.
    pub(crate) fn of(testnet: &Testnet, clients: Vec<Client>) -> Result<Self, LaunchError> {
        Ok(Self { secret: testnet.operator()?, clients, args: Vec::new() })
    }

    /// Gives its commands this many bytes of arguments.
    pub(crate) fn with_args(self, bytes: usize) -> Self {
        Self { args: vec![7; bytes], ..self }
    }

    /// Signs a command for a robot or a group.
    pub(crate) async fn sign(&self, client: &Client, to_send: &ToSend<'_>) -> Result<SignedCommand, LaunchError> {
        let target = match to_send.is_group {
            true => Target::Group(to_send.target.parse().map_err(invalid)?),
            false => Target::Agent(to_send.target.parse().map_err(invalid)?),
        };
        let valid_ms = u64::try_from(to_send.valid.as_millis()).unwrap_or(u64::MAX);
        let command = Command {
            place: client.place().await?,
            id: CommandId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
            target,
            verb: to_send.verb.parse().map_err(invalid)?,
            content_type: String::new().parse().map_err(invalid)?,
            args: self.args.clone().into(),
            deadline: client.deadline_in(valid_ms).await?,
            class: CommandClass::Routine,
            idempotent: false,
            supersedes: None,
            parent: None,
            trace: String::new().parse().map_err(invalid)?,
            waves: to_send.waves,
            operator: self.secret.key(),
        };
        command.sign(&self.secret).map_err(invalid)
    }

    /// Sends a command until it is accepted: the same one, through any node that answers.
    pub(crate) async fn send(&self, to_send: &ToSend<'_>) -> Result<Sent, LaunchError> {
        let mut last = None;
        let sending = async {
            let mut signed = None;
            for client in self.clients.iter().cycle() {
                if signed.is_none() {
                    let at_ns = boot_ns();
                    signed = self.sign(client, to_send).await.ok().map(|signed| (at_ns, signed));
                }
                if let Some((at_ns, signed)) = &signed {
                    match client.send_command(signed).await {
                        Ok(receipt) => return Some((*at_ns, signed.id, receipt.agents)),
                        Err(error) => {
                            let decided = !error.leaves_open();
                            last = Some(error);
                            if decided {
                                return None;
                            }
                        }
                    }
                }
                tokio::time::sleep(SEND_AGAIN_AFTER).await;
            }
            None
        };
        let sent = tokio::time::timeout(SEND_MAX, sending).await.ok().flatten();
        let valid_ms = u64::try_from(to_send.valid.as_millis()).unwrap_or(u64::MAX);
        match sent {
            Some((at_ns, id, agents)) => Ok(Sent { id, at_ns, valid_ms, agents: usize::try_from(agents).unwrap_or(0) }),
            None => Err(last.map_or_else(|| invalid("no node took the command in time"), LaunchError::from)),
        }
    }

    /// The state of a command at each agent, as the shard knows it.
    pub(crate) async fn show(&self, id: CommandId) -> Result<v1::CommandView, ClientError> {
        let mut last = None;
        for client in &self.clients {
            match client.command(id, Read::Linearizable).await {
                Ok(reply) => return Ok(reply.command.unwrap_or_default()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Endpoint("there is no node".to_owned())))
    }

    /// Waits until a command is open at no more than this many agents, or for this long; returns its state then.
    pub(crate) async fn until_open(
        &self,
        id: CommandId,
        at_most: usize,
        within: Duration,
    ) -> Result<v1::CommandView, LaunchError> {
        let until = tokio::time::Instant::now() + within;
        loop {
            let is_over = tokio::time::Instant::now() >= until;
            match self.show(id).await {
                Ok(view) if view.open as usize <= at_most || is_over => return Ok(view),
                Err(error) if is_over => return Err(error.into()),
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until commands have ended at every agent, or for this long; returns the state of each then.
    pub(crate) async fn ended(
        &self,
        ids: &[CommandId],
        within: Duration,
    ) -> Result<BTreeMap<CommandId, v1::CommandView>, LaunchError> {
        let until = tokio::time::Instant::now() + within;
        let mut views = BTreeMap::new();
        for id in ids {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            views.insert(*id, self.until_open(*id, 0, left).await?);
        }
        Ok(views)
    }
}
