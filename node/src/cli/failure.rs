//! How verbs fail: what went wrong, what to do next, and the exit code, which is in the catalogue of errors.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use skep_client::ClientError;
use skep_client::v1;
use skep_protocol::code::{Code, Exit};
use skep_protocol::text::{escaped, legible};

use super::format::Format;

/// The advice for a request that is too old to be sent again.
const TOO_LATE: &str = "check whether it was done: 'skep task list', 'skep command list', 'skep agent list' and \
                        'skep operator list' show what there is";

/// The exit code of a program whose reader has gone away: as if SIGPIPE had ended it.
const READER_GONE: u8 = 128 + 13;

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    code: Option<String>,
    message: String,
    retryable: bool,
    retry_after_ms: u64,
    /// The id of the request that may have been done.
    request: Option<String>,
    /// The line that sends it again.
    again: Option<String>,
}

impl Failure {
    fn with_exit(exit: Exit, message: impl ToString) -> Self {
        let message = message.to_string();
        Self {
            exit: exit.number(),
            code: None,
            message,
            retryable: false,
            retry_after_ms: 0,
            request: None,
            again: None,
        }
    }

    /// The verb went wrong.
    pub(crate) fn failed(error: impl ToString) -> Self {
        Self::with_exit(Exit::Failed, error)
    }

    /// The line was wrong.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::with_exit(Exit::Usage, message)
    }

    /// The thing that the line names does not exist.
    pub(crate) fn not_found(message: impl ToString) -> Self {
        Self::with_exit(Exit::NotFound, message)
    }

    /// The statement would hold for another shard than the operator means.
    pub(crate) fn another_shard(message: impl ToString) -> Self {
        Self::of_code(Code::AnotherShard, message)
    }

    /// The failure of a row of the catalogue, in words of its own.
    pub(crate) fn of_code(code: Code, message: impl ToString) -> Self {
        Self { code: Some(code.to_string()), ..Self::with_exit(code.exit(), message) }
    }

    /// The program cannot write its output. A reader that went away may have had enough: then the failure says nothing.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::reader_gone(),
            _ => Self::failed(format!("standard output: {error}; the verb may have done its work all the same")),
        }
    }

    /// The reader of the output has gone away.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: READER_GONE, ..Self::failed("") }
    }

    /// The same failure, with what to do next.
    #[must_use]
    pub(crate) fn advise(self, advice: &str) -> Self {
        Self { message: format!("{}; {advice}", self.message), ..self }
    }

    /// The request may have been done, and is safe to send again, as `advice` says.
    pub(crate) fn unknown(error: ClientError, advice: &str) -> Self {
        let advice = match &error {
            ClientError::Unknown { too_late: true, .. } => Some(TOO_LATE),
            ClientError::Unknown { request_id, .. } if !request_id.is_empty() => Some(advice),
            ClientError::Unknown { .. }
            | ClientError::NotDone(_)
            | ClientError::AnotherShard { .. }
            | ClientError::AnotherNumber { .. }
            | ClientError::Endpoint(_) => None,
        };
        let failure = Self::told(error);
        match advice {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }

    /// The request or command of this name may have been done.
    pub(crate) fn in_doubt(name: impl ToString, message: impl ToString) -> Self {
        Self { request: Some(name.to_string()), ..Self::with_exit(Exit::Unknown, message) }
    }

    /// The same failure of what is in doubt, which this line sends again.
    #[must_use]
    pub(crate) fn sent_again_by(self, line: Option<String>) -> Self {
        Self { retryable: true, again: line, ..self }
    }

    /// Prints the failure. Gives how the process ends.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if self.exit != READER_GONE {
            // If standard error cannot be written, the exit code tells.
            let _ = writeln!(std::io::stderr().lock(), "{}", self.shown(format, std::io::stderr().is_terminal()));
        }
        ExitCode::from(self.exit)
    }

    fn shown(&self, format: Format, on_terminal: bool) -> String {
        // The message may have several lines of the program's own, with a word of another party in them.
        let message = legible(&self.message);
        match format {
            Format::Table if on_terminal => {
                let diagnostic = miette::MietteDiagnostic::new(message);
                let report = format!("{:?}", miette::Report::from(diagnostic));
                // The line is not wrapped, so that a reader can copy it.
                let again = self.again.as_ref().map(|line| format!("\n{line}")).unwrap_or_default();
                report + &again
            }
            // The message is one line, however long, so that a search in a file finds it whole.
            Format::Table => {
                let again = self.again.as_ref().map(|line| format!(": {line}")).unwrap_or_default();
                format!("error: {message}{again}")
            }
            Format::Json | Format::Jsonl => {
                let error = serde_json::json!({
                    "error": {
                        "code": self.code,
                        "message": self.message,
                        "retryable": self.retryable,
                        "retry_after_ms": self.retry_after_ms,
                        "request": self.request,
                        "again": self.again,
                        "exit": self.exit,
                    }
                });
                error.to_string()
            }
        }
    }

    /// The failure of a client's error, without advice.
    fn told(error: ClientError) -> Self {
        // The message may be in the words of another party.
        let message = escaped(&error.to_string()).into_owned();
        match error {
            ClientError::Endpoint(_) => Self::usage(message),
            ClientError::AnotherShard { .. } | ClientError::AnotherNumber { .. } => Self::another_shard(message),
            ClientError::Unknown { request_id, .. } if request_id.is_empty() => {
                Self::with_exit(Exit::Unavailable, message)
            }
            ClientError::Unknown { request_id, too_late, .. } => {
                Self { retryable: !too_late, request: Some(request_id), ..Self::with_exit(Exit::Unknown, message) }
            }
            ClientError::NotDone(failure) => {
                let v1::Failure { code, retryable, retry_after_ms, .. } = *failure;
                // A newer node may give a code that this build does not know: the verb failed.
                let exit = Code::of(&code).map_or(Exit::Failed, Code::exit);
                Self { code: Some(code), retryable, retry_after_ms, ..Self::with_exit(exit, message) }
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let advice = match &error {
            ClientError::Unknown { request_id, .. } if request_id.contains('@') => {
                format!("the shard does one request once; to send this one again, add --request-id {request_id}")
            }
            _ => "'skep shard status' shows whether it was done".to_owned(),
        };
        Self::unknown(error, &advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(request_id: &str) -> ClientError {
        ClientError::Unknown { request_id: request_id.to_owned(), last: "no answer".to_owned(), too_late: false }
    }

    #[test]
    fn a_request_that_comes_too_late_is_unknown_and_nobody_is_told_to_send_it_again() {
        let request_id = "07070707-0707-0707-0707-070707070707@90".to_owned();
        let late =
            || ClientError::Unknown { request_id: request_id.clone(), last: "it passed".to_owned(), too_late: true };
        for failure in [Failure::from(late()), Failure::unknown(late(), "give the same line again")] {
            assert_eq!((failure.exit, failure.retryable), (6, false));
            assert!(failure.message.contains("too late") && failure.message.contains("skep task list"));
            assert!(!failure.message.contains("--request-id") && !failure.message.contains("same line"));
        }
    }

    #[test]
    fn the_line_that_sends_again_what_is_in_doubt_is_told_in_one_piece() {
        let line = format!("skep command send --to r1 --verb goto {} --id 7@9", "--arg x=1 ".repeat(40));
        let failure = Failure::in_doubt("7@9", "no answer").sent_again_by(Some(line.clone()));
        for on_terminal in [false, true] {
            assert!(failure.shown(Format::Table, on_terminal).ends_with(&line));
        }
        assert_eq!(failure.shown(Format::Table, false).lines().count(), 1);
        let shown: serde_json::Value = serde_json::from_str(&failure.shown(Format::Json, false)).unwrap();
        assert_eq!(shown["error"]["again"], line.as_str());
    }

    #[test]
    fn a_request_in_doubt_is_named_so_that_it_can_be_sent_again() {
        // hashicorp/nomad#10641
        let failure = Failure::from(unknown("07070707-0707-0707-0707-070707070707@90"));
        assert_eq!((failure.exit, failure.retryable), (6, true));
        assert!(failure.message.ends_with("add --request-id 07070707-0707-0707-0707-070707070707@90"));
        let shown: serde_json::Value = serde_json::from_str(&failure.shown(Format::Json, false)).unwrap();
        assert_eq!(shown["error"]["request"], "07070707-0707-0707-0707-070707070707@90");
        let of_members = Failure::from(unknown("add_voter"));
        assert!(of_members.message.contains("shard status") && !of_members.message.contains("--request-id"));
        assert_eq!(Failure::from(unknown("")).exit, 4, "a read changes nothing");
    }

    #[test]
    fn an_error_in_a_file_is_one_line_without_codes_for_a_terminal() {
        // thin-edge/thin-edge.io#2738
        let long = "word ".repeat(60);
        let shown = Failure::failed(&long).shown(Format::Table, false);
        assert_eq!(shown, format!("error: {long}"));
        let refused =
            v1::Failure { code: Code::LostRace.to_string(), message: "by \u{1b}[31mx\ny".into(), ..Default::default() };
        let shown = Failure::from(ClientError::NotDone(Box::new(refused))).shown(Format::Table, false);
        assert!(!shown.contains(['\u{1b}', '\n']), "{shown:?}");
    }

    #[test]
    fn an_error_has_no_characters_that_a_terminal_obeys_whoever_words_it() {
        // openclaw/openclaw#123797
        let failure = Failure::failed("first\nsecond \u{1b}[2J\u{9b}");
        assert_eq!(failure.shown(Format::Table, false), "error: first\nsecond \\u{1b}[2J\\u{9b}");
        assert!(!failure.shown(Format::Table, true).contains("\u{1b}[2J"));
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        // sharkdp/fd#737
        let gone = Failure::output(&std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((gone.exit, gone.message.as_str()), (READER_GONE, ""));
        let full = Failure::output(&std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.exit, 1);
        assert!(full.message.starts_with("standard output"), "{}", full.message);
    }
}
