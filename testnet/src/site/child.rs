//! A process of the testnet that is not a node: a robot or the station.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, Stdio};

use crate::error::{LaunchError, io_error};

/// A process that ends when the launcher does.
#[derive(Debug)]
pub struct Child {
    /// The name of the process.
    pub name: String,
    binary: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Child {
    /// A process that does not run yet. Its output goes to `log`.
    pub fn new(name: &str, binary: &Path, args: Vec<String>, log: PathBuf) -> Self {
        Self { name: name.to_owned(), binary: binary.to_owned(), args, log, process: None }
    }

    /// Starts the process.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub fn start(&mut self) -> Result<(), LaunchError> {
        let opened = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = opened.map_err(io_error(self.log.display().to_string()))?;
        let process = Command::new(&self.binary)
            .args(&self.args)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "SKEP_LOG" || name == "RUST_BACKTRACE"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(io_error("log"))?)
            .stderr(log)
            .spawn()
            .map_err(io_error(self.binary.display().to_string()))?;
        self.process = Some(process);
        Ok(())
    }

    /// The process id, if it was started and not killed.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether the process ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Stops a process with SIGSTOP, or lets it continue with SIGCONT.
///
/// # Errors
/// [`LaunchError::Io`] if the process is gone.
pub fn suspend(pid: u32, stop: bool) -> Result<(), LaunchError> {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = if stop { Signal::STOP } else { Signal::CONT };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid =
        pid.ok_or_else(|| LaunchError::Command { command: "kill".to_owned(), output: "no such pid".to_owned() })?;
    kill_process(pid, signal).map_err(|e| io_error(format!("pid {}", pid.as_raw_nonzero()))(e.into()))
}
