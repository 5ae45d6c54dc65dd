//! The name of a command, under which a client can send it again.

use std::fmt;
use std::str::FromStr;

use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;

/// Names a command: its id, and its deadline by the shard's clock.
///
/// Both are needed: the shard keeps a command until its deadline at least, and refuses a later sending however long ago
/// it forgot the id. A client that sends a command again under the same id with another deadline may cause it to be
/// done twice. As text: `UUID@DEADLINE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandName {
    /// The command's id.
    pub id: CommandId,
    /// No robot starts the command after this instant of the shard's clock.
    pub deadline: LogInstant,
}

/// A text that is not the name of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a command; give UUID@DEADLINE, as the error or 'skep command id' named it")]
pub struct CommandNameError(String);

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.deadline.raw())
    }
}

impl FromStr for CommandName {
    type Err = CommandNameError;
    fn from_str(text: &str) -> Result<Self, CommandNameError> {
        let bad = || CommandNameError(text.chars().take(80).collect());
        let (id, deadline) = text.split_once('@').ok_or_else(bad)?;
        let id = id.parse().map_err(|_| bad())?;
        let deadline = deadline.parse().map(LogInstant::from_raw).map_err(|_| bad())?;
        Ok(Self { id, deadline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_named_with_the_bound_of_its_id() {
        let name = CommandName { id: CommandId::from_bytes([7; 16]), deadline: LogInstant::from_raw(90) };
        assert_eq!(name.to_string(), "07070707-0707-0707-0707-070707070707@90");
        assert_eq!(name.to_string().parse(), Ok(name));
        for bad in ["", "@90", "7@90", "07070707-0707-0707-0707-070707070707", "07070707-0707-0707-0707-070707070707@"]
        {
            assert!(bad.parse::<CommandName>().is_err(), "{bad:?}");
        }
    }
}
