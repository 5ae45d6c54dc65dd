//! The highest number of a statement that a key signed for a shard.
//!
//! A statement about an operator has a higher number than the one before it, and the node names that one. A node that
//! lies could get a statement signed under a number that no later one ever reaches: robots' nodes that hear of it would
//! believe no later statement about that operator, a revocation least of all. So a file beside the key remembers the
//! highest number, and the key signs no number far above it.

use std::path::{Path, PathBuf};

use skep_client::Genesis;
use skep_consensus::{ReadableBy, replace_whole};
use skep_protocol::limits::SERIAL_STEP_MAX;

use super::Failure;
use super::output::tell;
use super::pin::read;

/// The file that remembers the highest number.
#[derive(Clone, Debug)]
pub(crate) struct Serials {
    file: PathBuf,
}

impl Serials {
    /// The file for the shard of a genesis, beside an operator's key.
    pub(super) fn beside(key: &Path, genesis: Genesis) -> Self {
        let mut file = key.as_os_str().to_owned();
        file.push(format!(".serial-{genesis}"));
        Self { file: file.into() }
    }

    /// Refuses a number that is far above all that the key signed. Remembers any other.
    pub(super) fn check(&self, next: u64) -> Result<(), Failure> {
        let file = self.file.display();
        let malformed =
            |_| Failure::failed(format!("{file}: it holds no number; write the highest number into it, or remove it"));
        let known =
            read(&self.file)?.map(|text| text.trim().parse::<u64>().map_err(malformed)).transpose()?.unwrap_or(0);
        if next > known.saturating_add(SERIAL_STEP_MAX) {
            let last = next.saturating_sub(1);
            return Err(Failure::failed(format!(
                "the node says that the statement before this one has number {last}, and this key signed none above {known}, as \
                 {file} has it: nothing was signed. Ask a node that you trust; if it says the same, write {last} into that file"
            )));
        }
        if next > known
            && let Err(error) = replace_whole(&self.file, format!("{next}\n").as_bytes(), ReadableBy::Everybody)
        {
            tell(&format!("the number of the statement is not remembered beside the key, in {file}: {error}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_statement_is_signed_under_a_number_that_is_far_above_all_that_were_signed() {
        let dir = tempfile::tempdir().unwrap();
        let of = |n: u8| Serials::beside(&dir.path().join("operator.key"), Genesis::from_bytes([n; 16]));
        let serials = of(6);
        let refused = format!("{:?}", serials.check(1 << 62).unwrap_err());
        for said in [((1_u64 << 62) - 1).to_string().as_str(), "operator.key.serial-0606", "nothing was signed"] {
            assert!(refused.contains(said), "{said}: {refused}");
        }
        serials.check(SERIAL_STEP_MAX).unwrap();
        serials.check(2 * SERIAL_STEP_MAX).unwrap();
        assert!(serials.check(3 * SERIAL_STEP_MAX + 1).is_err());
        // The number for an operator with few statements is lower, and the file keeps the highest.
        serials.check(7).unwrap();
        serials.check(3 * SERIAL_STEP_MAX).unwrap();
        assert!(of(7).check(3 * SERIAL_STEP_MAX).is_err(), "of another shard nothing is known");
        // An operator that heard the number from a trusted node writes it down.
        std::fs::write(&serials.file, "4000000000\n").unwrap();
        serials.check(4_000_000_001).unwrap();
        std::fs::write(&serials.file, "rubbish").unwrap();
        assert!(serials.check(1).is_err());
    }
}
