//! The shard for which an operator's key signs.
//!
//! A statement holds for the shard of one genesis, and nowhere else, and the node names that genesis. A node that lies
//! names the genesis of another shard, where the same operator may do something. So a file beside the key remembers the
//! first genesis for which the key signs under a shard's number, as ssh remembers hosts, and the key signs for no
//! other.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use skep_client::{Genesis, ShardId};
use skep_consensus::{ReadableBy, replace_whole, write_whole};

use super::output::{one, tell};
use super::{Common, Failure};

/// More bytes than the file has.
const BYTES_MAX: u64 = 256;

/// The file that remembers the genesis of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    file: PathBuf,
    shard: ShardId,
}

#[derive(Serialize)]
struct View {
    shard: u32,
    genesis: String,
    file: PathBuf,
}

fn failed(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {error}", file.display()))
}

/// The text of a file beside a key; none if there is no file. A file that other users can change is refused.
pub(super) fn read(file: &Path) -> Result<Option<String>, Failure> {
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(file, e)),
    };
    let mode = opened.metadata().map_err(|e| failed(file, e))?.mode();
    if mode & 0o022 != 0 {
        return Err(failed(file, format!("other users can change it; run 'chmod 644 {}'", file.display())));
    }
    let mut text = String::new();
    opened.take(BYTES_MAX).read_to_string(&mut text).map_err(|e| failed(file, e))?;
    Ok(Some(text))
}

impl Pin {
    /// The file for a shard, beside an operator's key.
    pub(super) fn beside(key: &Path, shard: ShardId) -> Self {
        let mut file = key.as_os_str().to_owned();
        file.push(format!(".shard-{shard}"));
        Self { file: file.into(), shard }
    }

    fn failed(&self, error: impl std::fmt::Display) -> Failure {
        failed(&self.file, error)
    }

    /// The remembered genesis; none if there is none.
    fn read(&self) -> Result<Option<Genesis>, Failure> {
        let malformed = |_| self.failed("it holds no genesis; remove it, or write it anew by 'skep operator pin'");
        read(&self.file)?.map(|text| text.trim().parse::<Genesis>().map_err(malformed)).transpose()
    }

    /// Refuses a genesis that differs from the remembered one. The first genesis is remembered.
    pub(super) fn check(&self, told: Genesis) -> Result<(), Failure> {
        let known = match self.read()? {
            Some(known) => known,
            None => match write_whole(&self.file, format!("{told}\n").as_bytes(), ReadableBy::Everybody) {
                Ok(()) => told,
                // Another process was first.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.read()?.unwrap_or(told),
                Err(e) => {
                    self.say_not_remembered(&e);
                    told
                }
            },
        };
        if known == told {
            return Ok(());
        }
        let (file, shard) = (self.file.display(), self.shard);
        Err(Failure::another_shard(format!(
            "the node names a shard {shard} of genesis {told}, and this key signs for the one of genesis {known}, as {file} has it: \
             nothing was signed. If that one was recovered or made anew, look at 'skep shard status' on a node that you trust, and \
             give 'skep operator pin GENESIS'; with a key that is used at several sites, give --genesis"
        )))
    }

    /// Remembers a genesis in place of the one before. A genesis is no secret, and root may write it down for the
    /// operator.
    fn set(&self, genesis: Genesis) -> io::Result<()> {
        replace_whole(&self.file, format!("{genesis}\n").as_bytes(), ReadableBy::Everybody)
    }

    /// Remembers the genesis that the operator itself gave a shard. Its work is done, even if the file cannot be
    /// written.
    pub(super) fn note(&self, genesis: Genesis) {
        if let Err(error) = self.set(genesis) {
            self.say_not_remembered(&error);
        }
    }

    fn say_not_remembered(&self, why: &io::Error) {
        let file = self.file.display();
        tell(&format!("the genesis of shard {} is not remembered beside the key, in {file}: {why}", self.shard));
    }

    /// Remembers a genesis, and says so.
    pub(super) fn pin(&self, genesis: Genesis, common: &Common) -> Result<(), Failure> {
        self.set(genesis).map_err(|e| self.failed(e))?;
        let view = View { shard: self.shard.0, genesis: genesis.to_string(), file: self.file.clone() };
        let lines = [
            ("shard", view.shard.to_string()),
            ("genesis", view.genesis.clone()),
            ("file", view.file.display().to_string()),
        ];
        one(common.output, &view, &lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn genesis(n: u8) -> Genesis {
        Genesis::from_bytes([n; 16])
    }

    #[test]
    fn the_first_genesis_that_a_key_signs_for_is_remembered_and_no_other_is_signed_for() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("operator.key");
        let pin = Pin::beside(&key, ShardId(1));
        pin.check(genesis(6)).unwrap();
        let file = dir.path().join("operator.key.shard-1");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", "06".repeat(16)));
        // Root may have written the file.
        let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o644);
        pin.check(genesis(6)).unwrap();
        let refused = format!("{:?}", pin.check(genesis(7)).unwrap_err());
        for said in ["06060606", "07070707", "operator.key.shard-1", "skep operator pin"] {
            assert!(refused.contains(said), "{said}: {refused}");
        }
        pin.check(genesis(6)).unwrap();
        // Nothing is remembered for another number, or beside another key.
        Pin::beside(&key, ShardId(2)).check(genesis(7)).unwrap();
        Pin::beside(&dir.path().join("other.key"), ShardId(1)).check(genesis(7)).unwrap();
        pin.set(genesis(7)).unwrap();
        pin.check(genesis(7)).unwrap();
        assert!(pin.check(genesis(6)).is_err());
        assert_eq!(mode(), 0o644);
    }

    #[test]
    fn a_file_that_holds_no_genesis_or_that_others_can_change_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let pin = Pin::beside(&dir.path().join("key"), ShardId(1));
        for bad in ["", "06", "rubbish"] {
            std::fs::write(&pin.file, bad).unwrap();
            std::fs::set_permissions(&pin.file, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(pin.check(genesis(6)).is_err(), "{bad:?}");
        }
        pin.set(genesis(6)).unwrap();
        std::fs::set_permissions(&pin.file, std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(pin.check(genesis(6)).is_err());
    }
}
