//! How verbs fail: what, what next, and the exit code, which the catalogue of errors knows.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use skep_client::ClientError;
use skep_client::v1;
use skep_protocol::code::{Code, Exit};
use skep_protocol::text::{escaped, legible};

use super::format::Format;

/// What is said of a request that is too old to be sent again.
const TOO_LATE: &str = "check whether it was done: 'skep task list', 'skep command list', 'skep agent list' and \
                        'skep operator list' show what there is";

/// How a program ends whose reader has gone away: as if SIGPIPE had ended it.
const READER_GONE: u8 = 128 + 13;

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    code: Option<String>,
    message: String,
    retryable: bool,
    retry_after_ms: u64,
    /// The request that may have been done.
    request: Option<String>,
    /// The line with which that can be sent again.
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

    /// Something went wrong.
    pub(crate) fn failed(error: impl ToString) -> Self {
        Self::with_exit(Exit::Failed, error)
    }

    /// The line was not given right.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::with_exit(Exit::Usage, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl ToString) -> Self {
        Self::with_exit(Exit::NotFound, message)
    }

    /// It would have been signed for another shard than it is meant for.
    pub(crate) fn another_shard(message: impl ToString) -> Self {
        Self { code: Some(Code::AnotherShard.to_string()), ..Self::with_exit(Code::AnotherShard.exit(), message) }
    }

    /// The output cannot be written. Whoever read it may have had enough: then nothing is said.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::reader_gone(),
            _ => Self::failed(format!("standard output: {error}; what was asked for may have been done all the same")),
        }
    }

    /// Nobody reads the output any more.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: READER_GONE, ..Self::failed("") }
    }

    /// The same, and what to do next.
    #[must_use]
    pub(crate) fn advise(self, advice: &str) -> Self {
        Self { message: format!("{}; {advice}", self.message), ..self }
    }

    /// Something may have been done, and is safe to be asked for again, by this.
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

    /// Something of this name may have been done.
    pub(crate) fn in_doubt(name: impl ToString, message: impl ToString) -> Self {
        Self { request: Some(name.to_string()), ..Self::with_exit(Exit::Unknown, message) }
    }

    /// The same of what is in doubt and can be sent again, by this line.
    #[must_use]
    pub(crate) fn sent_again_by(self, line: Option<String>) -> Self {
        Self { retryable: true, again: line, ..self }
    }

    /// Prints it and says how the process ends.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        if self.exit != READER_GONE {
            // Where standard error cannot be written, the exit code says it.
            let _ = writeln!(std::io::stderr().lock(), "{}", self.shown(format, std::io::stderr().is_terminal()));
        }
        ExitCode::from(self.exit)
    }

    fn shown(&self, format: Format, on_terminal: bool) -> String {
        // It may be in several lines of ours, with a word in it of somebody else.
        let message = legible(&self.message);
        match format {
            Format::Table if on_terminal => {
                let diagnostic = miette::MietteDiagnostic::new(message);
                let report = format!("{:?}", miette::Report::from(diagnostic));
                // Not broken into lines, so that it can be copied.
                let again = self.again.as_ref().map(|line| format!("\n{line}")).unwrap_or_default();
                report + &again
            }
            // As long as it is: whoever searches a file finds what was said in one piece.
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

    /// What a client says, without what may be said beside it.
    fn told(error: ClientError) -> Self {
        // It may be in the words of somebody else.
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
                // A newer node may say what this build does not know: it failed.
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
                format!("the same request can be sent again, and is done once: add --request-id {request_id}")
            }
            _ => "'skep shard status' shows whether it was".to_owned(),
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
        let failure = Failure::in_doubt("7@9", "nobody knows").sent_again_by(Some(line.clone()));
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
