//! How commands fail: what, what next, and the exit code.

use std::process::ExitCode;

use skep_client::ClientError;
use skep_client::v1;

use super::output::Format;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: u8,
    code: Option<String>,
    message: String,
    retryable: bool,
    retry_after_ms: u64,
}

impl Failure {
    fn with_exit(exit: u8, message: impl ToString) -> Self {
        Self { exit, code: None, message: message.to_string(), retryable: false, retry_after_ms: 0 }
    }

    /// Something went wrong.
    pub(crate) fn failed(error: impl ToString) -> Self {
        Self::with_exit(1, error)
    }

    /// The command was not given right.
    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::with_exit(2, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl ToString) -> Self {
        Self::with_exit(3, message)
    }

    /// Prints it and says how the process ends.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        match format {
            Format::Table => {
                let diagnostic = miette::MietteDiagnostic::new(self.message.clone());
                eprintln!("{:?}", miette::Report::from(diagnostic));
            }
            Format::Json | Format::Jsonl => {
                let error = serde_json::json!({
                    "error": {
                        "code": self.code,
                        "message": self.message,
                        "retryable": self.retryable,
                        "retry_after_ms": self.retry_after_ms,
                        "exit": self.exit,
                    }
                });
                eprintln!("{error}");
            }
        }
        ExitCode::from(self.exit)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Endpoint(_) => Self::usage(message),
            ClientError::Unknown { request_id, .. } if request_id.is_empty() => Self::with_exit(4, message),
            ClientError::Unknown { .. } => Self { retryable: true, ..Self::with_exit(6, message) },
            ClientError::NotDone(failure) => {
                let v1::Failure { code, retryable, retry_after_ms, .. } = *failure;
                let exit = exit_code(&code);
                Self { exit, code: Some(code), message, retryable, retry_after_ms }
            }
        }
    }
}

fn exit_code(code: &str) -> u8 {
    match code {
        "SKEP-0001" | "SKEP-0103" | "SKEP-0104" | "SKEP-0106" | "SKEP-0304" | "SKEP-0401" | "SKEP-0413" => 2,
        "SKEP-0002" | "SKEP-0108" | "SKEP-0117" | "SKEP-0415" | "SKEP-0416" => 3,
        "SKEP-0003" | "SKEP-0007" | "SKEP-0008" | "SKEP-0105" | "SKEP-0202" | "SKEP-0203" | "SKEP-0204"
        | "SKEP-0301" => 4,
        "SKEP-0113" | "SKEP-0302" => 5,
        "SKEP-0402" | "SKEP-0403" | "SKEP-0405" | "SKEP-0406" | "SKEP-0407" | "SKEP-0409" | "SKEP-0410" => 5,
        _ => 1,
    }
}
