//! The code of an invitation on its way into the program.
//!
//! The arguments and the environment of a process can be read by others on its machine for as long as it runs. So a
//! process that finds a code there begins anew without it, and hears it through a pipe.

use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use skep_trust::InvitationCode;
use zeroize::Zeroizing;

use crate::cli::output::tell;
use crate::cli::{Failure, variable};

/// The variable that may hold the code.
const VARIABLE: &str = "SKEP_INVITE";
/// What stands for standard input.
const INPUT: &str = "-";
/// As much as is read of standard input: a text is never moved as it grows, so that no copy of it stays behind.
const INPUT_BYTES_MAX: usize = 1_024;

/// The code: the given one, that of standard input, or that of the environment.
pub(super) fn read(given: Option<String>) -> Result<InvitationCode, Failure> {
    match given.map(Zeroizing::new) {
        Some(text) if text.as_str() == INPUT => understood(&from_input()?),
        Some(text) => hidden(&text, std::env::args_os().skip(1)),
        None => {
            let text = variable(VARIABLE).filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| {
                Failure::usage(format!("give the code of an invitation, or {INPUT} to read it, or set {VARIABLE}"))
            })?;
            let text = text.into_string().map(Zeroizing::new);
            let text = text.map_err(|_| Failure::usage(format!("{VARIABLE} holds no code of an invitation")))?;
            hidden(&text, std::env::args_os().skip(1).chain([OsString::from(INPUT)]))
        }
    }
}

fn understood(text: &str) -> Result<InvitationCode, Failure> {
    InvitationCode::from_text(text.trim()).map_err(Failure::usage)
}

fn from_input() -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(INPUT_BYTES_MAX));
    let read = io::stdin().lock().take(INPUT_BYTES_MAX as u64).read_line(&mut text);
    read.map_err(|error| Failure::usage(format!("standard input: {error}")))?;
    Ok(text)
}

/// The code of a text that others can read while the process runs: if it is one, the program begins anew without it.
fn hidden(text: &str, args: impl Iterator<Item = OsString>) -> Result<InvitationCode, Failure> {
    let code = understood(text)?;
    if let Err(error) = begin_anew(text, args) {
        tell(&format!("others on this machine can read the code while this runs: {error}"));
    }
    Ok(code)
}

/// Runs the program in place of this process, with the code at its standard input and nowhere else.
fn begin_anew(code: &str, args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let (input, mut output) = io::pipe()?;
    // It has room for a code.
    output.write_all(code.as_bytes())?;
    drop(output);
    let args = args.map(|arg| if arg.to_str() == Some(code) { OsString::from(INPUT) } else { arg });
    let mut program = Command::new(std::env::current_exe()?);
    Err(program.args(args).env_remove(VARIABLE).stdin(input).exec())
}
