//! Sending a request again of which nobody knew whether it was done.

use std::ffi::OsString;

use clap::Args;
use skep_client::{Client, RequestName};
use skep_protocol::text::is_control;

use super::Failure;

/// For how long a request that was typed can be sent again, in milliseconds. Then the shard remembers it no more.
const RESEND_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Under which name a request is sent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Resend {
    /// Name of the request (UUID@CLOCK), to send a request in doubt again: the error prints it, and the shard does the request once. For a first sending give a UUID of your own, which serves for ten minutes; with @ and the clock that 'skep shard status -o json' prints it is refused after them
    #[arg(long, value_name = "REQUEST")]
    pub(crate) request_id: Option<RequestName>,
}

impl Resend {
    /// The client for the one request that is asked for.
    pub(crate) async fn client(&self, client: &Client) -> Result<Client, Failure> {
        Ok(client.under(self.request_id, RESEND_WITHIN_MS).await?)
    }
}

/// A line as it was typed, with an option of this value in place of the one that it had: so that a shell takes it for the same.
/// None if it holds what is no text.
pub(crate) fn line_with(args: impl IntoIterator<Item = OsString>, option: &str, value: &str) -> Option<String> {
    let args: Option<Vec<String>> = args.into_iter().map(|arg| arg.into_string().ok()).collect();
    let mut args = args?.into_iter();
    let mut kept = Vec::new();
    while let Some(arg) = args.next() {
        if arg == option {
            // Its value.
            args.next();
        } else if !arg.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')) {
            kept.push(quoted(&arg));
        }
    }
    kept.extend([option.to_owned(), quoted(value)]);
    Some(kept.join(" "))
}

/// An argument as a shell reads it. What a terminal would obey is written out, byte by byte.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-+=:,./@".contains(c);
    if !arg.is_empty() && !arg.starts_with('=') && arg.chars().all(plain) {
        return arg.to_owned();
    }
    if !arg.contains(is_control) {
        return format!("'{}'", arg.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for c in arg.chars() {
        if is_control(c) {
            quoted.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:03o}")));
        } else {
            quoted.extend(matches!(c, '\'' | '\\').then_some('\\'));
            quoted.push(c);
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(args: &[&str]) -> String {
        line_with(args.iter().map(OsString::from), "--id", "7@9").unwrap()
    }

    #[test]
    fn a_line_is_given_back_so_that_a_shell_takes_it_for_the_same() {
        let typed = ["skep", "command", "send", "--arg", "place=dock 7", "--arg", "who=it's", "--data", ""];
        let line = again(&typed);
        assert_eq!(line, r"skep command send --arg 'place=dock 7' --arg 'who=it'\''s' --data '' --id 7@9");
        assert_eq!(again(&["skep", "--arg", "x:={\"a\":[1,$HOME]}"]), "skep --arg 'x:={\"a\":[1,$HOME]}' --id 7@9");
        assert_eq!(again(&["skep", "--arg", "a=\u{1b}[2J\\\n"]), r"skep --arg $'a=\033[2J\\\012' --id 7@9");
    }

    #[test]
    fn a_line_names_one_id_however_often_it_is_sent_again() {
        for typed in [&["skep", "--id", "7@8", "--wait"][..], &["skep", "--id=7@8", "--wait"], &["skep", "--wait"]] {
            assert_eq!(again(typed), "skep --wait --id 7@9");
        }
    }
}
