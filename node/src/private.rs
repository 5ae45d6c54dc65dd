//! What the process keeps from other users of its machine: the files that it makes, and its memory, which holds keys.

use std::ffi::OsStr;
use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

/// The variable that opens the process's memory to debuggers and profilers of its own user.
pub(crate) const DUMPABLE: &str = "SKEP_DUMPABLE";

/// From now on the files of the process are for its owner only, whatever file mask the process started with.
pub(crate) fn keep_files() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// From now on no other program can read the process's memory, not even one of its own user, and the process leaves no
/// core file; unless [`DUMPABLE`] is set to 1.
///
/// # Errors
/// The error of the system: then other programs can read the memory.
pub(crate) fn keep_memory(dumpable: Option<&OsStr>) -> io::Result<()> {
    if dumpable.is_some_and(|value| value == "1") {
        return Ok(());
    }
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn a_process_with_keys_is_not_looked_into_unless_that_is_asked_for() {
        keep_memory(Some(OsStr::new("1"))).unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
        for not_asked in [None, Some(OsStr::new("")), Some(OsStr::new("0"))] {
            set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
            keep_memory(not_asked).unwrap();
            assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        }
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
    }
}
