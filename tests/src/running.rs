//! A run of the program that goes on, and its output meanwhile.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that runs until the test ends it, or it ends by itself.
pub struct Running {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    told: Receiver<String>,
}

fn lines_of(source: impl Read + Send + 'static) -> Receiver<String> {
    let (lines, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    told
}

#[allow(clippy::expect_used, clippy::panic, reason = "a harness: what fails here fails the test")]
impl Running {
    /// Starts the process.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let output = child.stdout.take().map(BufReader::new);
        let told = lines_of(child.stderr.take().expect("standard error"));
        Self { child, output, told }
    }

    /// The next line of its output.
    ///
    /// # Panics
    /// If there is none.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.as_mut().expect("it is read").read_line(&mut line);
        assert!(read.expect("text") > 0, "its output ended");
        line.trim_end().to_owned()
    }

    /// Waits until it says something on standard error.
    ///
    /// # Panics
    /// If it does not.
    pub fn until_told(&self, what: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.told.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => println!("it said: {line}"),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("it never said {what:?}"),
            }
        }
    }

    /// Waits until it said each of these on standard error, in any order; returns the lines, in the order of `what`.
    ///
    /// # Panics
    /// If it does not.
    pub fn until_all_told(&self, what: &[&str]) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut lines = vec![None; what.len()];
        while lines.iter().any(Option::is_none) {
            let told = self.told.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = told.unwrap_or_else(|_| panic!("it never said all of {what:?}: {lines:?}"));
            println!("it said: {line}");
            if let Some(at) = what.iter().position(|part| line.contains(part)) {
                lines[at].get_or_insert(line);
            }
        }
        lines.into_iter().flatten().collect()
    }

    /// Stops reading its output.
    pub fn stop_reading(&mut self) {
        self.output = None;
    }

    /// Waits until it ends by itself; returns its exit status.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it goes on for ever");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
