//! Nodes that may have few files and sockets open.

use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::Testnet;
use crate::error::{LaunchError, io_error};

/// A command whose process may have this many descriptors, and no more, even if it asks for more. It is still the
/// process of the program.
pub(super) fn limited(command: &Command, descriptors: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {descriptors} && exec \"$0\" \"$@\""));
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

/// As many descriptors as this process, and each one that it starts, may have at all.
fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

impl Testnet {
    /// Starts a node that does not run and that may have this many descriptors from its start to its end, or as many as
    /// this process may have, if those are fewer.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub(crate) fn start_with_descriptors(&mut self, at: usize, descriptors: u64) -> Result<(), LaunchError> {
        self.launch(at, Some(most().map_or(descriptors, |most| most.min(descriptors))))
    }

    /// Limits a running node to this many descriptors from here on, whatever it found when it started; to its usual
    /// number if none. Leaves a node alone that does not run.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub(crate) fn limit_descriptors(&self, at: usize, descriptors: Option<u64>) -> Result<(), LaunchError> {
        let node = &self.nodes[at];
        let Some(pid) = node.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else { return Ok(()) };
        let maximum = most();
        // The maximum that it may ask for stays: only root could give that back.
        let few = descriptors.map(|few| maximum.map_or(few, |most| most.min(few)));
        match prlimit(Some(pid), Resource::Nofile, Rlimit { current: few.or(maximum), maximum }) {
            Ok(_) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(io_error(format!("descriptors of {}", node.name))(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_process_can_neither_have_nor_ask_for_more_and_is_given_what_it_was_given() {
        let mut told = Command::new("sh");
        told.args(["-c", "ulimit -n; ulimit -Hn; echo \"$1\"", "sh", "two words"]);
        let output = limited(&told, 64).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "64\n64\ntwo words\n");
    }
}
