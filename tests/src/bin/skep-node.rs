//! The node under test: the same program as `skep`, in this package, so that tests can name its path. It can pose as
//! another build.

use std::process::ExitCode;

fn main() -> ExitCode {
    match skep_tests::pose::posed() {
        Ok(build) => skep::main_of(build),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
