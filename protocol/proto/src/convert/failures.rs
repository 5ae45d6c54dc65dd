//! Failures as clients are told them: a row of the catalogue, and what happened.

use skep_protocol::code::{Again, Certainty, Code};

use crate::v1;

/// A failure of this code, as far as the catalogue knows it. With [`Again::Sometimes`] it says that sending the request
/// again is of no use.
pub fn failure(code: Code, message: impl ToString) -> v1::Failure {
    let certainty = match code.certainty() {
        Certainty::NotDone | Certainty::NotBySending => v1::Certainty::NotDone,
        Certainty::Unknown => v1::Certainty::Unknown,
    };
    v1::Failure {
        code: code.to_string(),
        message: message.to_string(),
        help: code.help().to_owned(),
        certainty: certainty.into(),
        retryable: matches!(code.again(), Again::After(_) | Again::Told),
        retry_after_ms: code.again().after_ms().unwrap_or_default(),
        silent_about_earlier: code.certainty() != Certainty::NotDone,
    }
}
