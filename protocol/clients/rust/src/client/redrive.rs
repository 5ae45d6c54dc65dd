//! Commands that failed, sent again.

use std::fmt::Display;

use skep_proto::v1;
use skep_protocol::command::{Command, CommandClass, Target, redriven};
use skep_protocol::ids::CommandId;
use skep_protocol::signing::{OperatorSecret, Place};

use super::Client;
use crate::error::ClientError;

/// Why a command could not be made again.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// What the node tells of it makes no command.
    #[error("{0}")]
    Told(String),
    /// It cannot be signed.
    #[error("{0}")]
    Unsigned(String),
    /// The shard's clock cannot be told.
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn told(error: impl Display) -> RedriveError {
    RedriveError::Told(error.to_string())
}

impl Client {
    /// Sends a command of this id again to one of its robots, signed anew, to be started within so many milliseconds. Its new id
    /// is the same however often that is tried, so that the robot does it once. That id, and why it was not sent, if it was not.
    ///
    /// # Errors
    /// [`RedriveError`] if there is nothing that could be sent.
    pub async fn redrive_command(
        &self,
        (command, view): (CommandId, &v1::CommandView),
        agent: &str,
        valid_ms: u64,
        (place, secret): (&Place, &OperatorSecret),
    ) -> Result<(CommandId, Result<(), ClientError>), RedriveError> {
        let first = view.command.clone().unwrap_or_default();
        let agent = agent.parse().map_err(told)?;
        let id = redriven(command, &agent);
        let again = Command {
            place: place.clone(),
            id,
            target: Target::Agent(agent),
            verb: first.verb.parse().map_err(told)?,
            content_type: first.content_type.parse().map_err(told)?,
            args: first.args.into(),
            deadline: self.deadline_in(valid_ms).await?,
            class: if first.urgent { CommandClass::Urgent } else { CommandClass::Routine },
            idempotent: first.idempotent,
            supersedes: None,
            parent: Some(command),
            trace: first.traceparent.parse().map_err(told)?,
            waves: None,
            operator: secret.key(),
        };
        let signed = again.sign(secret).map_err(|error| RedriveError::Unsigned(error.to_string()))?;
        Ok(match self.send_command(&signed).await {
            Ok(_) => (id, Ok(())),
            // An earlier attempt sent it.
            Err(error) if error.is_already_there() => (id, Ok(())),
            Err(error) => (id, Err(error)),
        })
    }
}
