//! The node under test: the same program as `skep`, in this package, so that tests can name its path.

use std::process::ExitCode;

fn main() -> ExitCode {
    skep::main()
}
