//! The form of a file of a site: what it is, what it holds, and a checksum of both.

use sha2::{Digest as _, Sha256};
use skep_protocol::limits;

/// What every file of a site begins with. Another form has another number.
const MAGIC: &[u8] = b"skep site file 1\n";
const SUM_BYTES: usize = 32;

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sheet {
    /// All root documents.
    Roots,
    /// The node's chain of certificates.
    Chain,
    /// All revocations.
    Revocations,
    /// What never falls.
    Floors,
    /// Where members are said to be.
    Hints,
    /// With which shards the site begins.
    First,
}

impl Sheet {
    /// Its name in the directory.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Roots => "roots",
            Self::Chain => "chain",
            Self::Revocations => "revocations",
            Self::Floors => "floors",
            Self::Hints => "hints",
            Self::First => "first-shards",
        }
    }

    /// The most bytes that it can have.
    pub(super) const fn bytes_max(self) -> u64 {
        let body = match self {
            Self::Roots => limits::ROOT_VERSIONS_MAX * 2 * limits::ROOT_BYTES_MAX,
            Self::Chain => limits::CHAIN_BYTES_MAX,
            Self::Revocations => limits::REVOCATIONS_MAX * 2 * limits::CHAIN_BYTES_MAX,
            Self::Floors | Self::Hints | Self::First => 64 * 1024,
        };
        body as u64 + 1_024
    }

    fn head(self) -> Vec<u8> {
        [MAGIC, self.name().as_bytes(), b"\n"].concat()
    }

    /// The whole file that holds this.
    pub(super) fn wrap(self, body: &[u8]) -> Vec<u8> {
        let mut file = self.head();
        file.extend_from_slice(body);
        let sum: [u8; SUM_BYTES] = Sha256::digest(&file).into();
        file.extend_from_slice(&sum);
        file
    }

    /// What a file holds.
    pub(super) fn body_of(self, file: &[u8]) -> Result<&[u8], &'static str> {
        let (summed, sum) = file.split_last_chunk::<SUM_BYTES>().ok_or("it is cut off")?;
        if *sum != <[u8; SUM_BYTES]>::from(Sha256::digest(summed)) {
            return Err("it is cut off, or was changed");
        }
        summed.strip_prefix(self.head().as_slice()).ok_or("it is another file, or a newer Skep wrote it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written_and_in_no_other_way() {
        let file = Sheet::Chain.wrap(b"what it holds");
        assert_eq!(Sheet::Chain.body_of(&file), Ok(&b"what it holds"[..]));
        assert!(Sheet::Roots.body_of(&file).is_err(), "it is in the place of another one");
        (0..file.len()).for_each(|end| assert!(Sheet::Chain.body_of(&file[..end]).is_err(), "cut off at {end}"));
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Sheet::Chain.body_of(&changed).is_err(), "bit {bit}");
        }
        assert!(Sheet::Chain.body_of(&[&file[..], b"x"].concat()).is_err(), "something behind it");
    }
}
