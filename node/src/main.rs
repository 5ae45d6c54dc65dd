//! The `skep` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep::main()
}
