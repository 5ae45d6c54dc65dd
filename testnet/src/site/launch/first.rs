//! The first operator of a testnet, whose key is in the testnet's directory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use skep_client::{FirstOperator, Genesis, OperatorSecret, Place, ShardId, SignedFirst};

use super::{SITE, Testnet};
use crate::error::{LaunchError, io_error};

fn invalid(what: impl std::fmt::Display) -> LaunchError {
    LaunchError::Command { command: "the first operator of a testnet".to_owned(), output: what.to_string() }
}

impl Testnet {
    /// The path of the file with the key of the shard's first operator.
    pub fn operator_key(&self) -> PathBuf {
        self.layout.dir.join("operator.key")
    }

    /// The shard's first operator. The first call makes its key, which stays in the directory.
    ///
    /// # Errors
    /// [`LaunchError`] if the file cannot be read or made, or has no key in it.
    pub fn operator(&self) -> Result<OperatorSecret, LaunchError> {
        let path = self.operator_key();
        let what = || io_error(path.display().to_string());
        if !path.exists() {
            let seed: [u8; 32] = rand::random();
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(what())?;
            file.write_all(OperatorSecret::text_of(&seed).as_bytes()).map_err(what())?;
        }
        let text = std::fs::read_to_string(&path).map_err(what())?;
        OperatorSecret::from_text(&text).ok_or_else(|| invalid("no operator's key"))
    }

    /// The genesis and the first operator of a new shard.
    pub(super) fn charter(&self) -> Result<(Genesis, SignedFirst), LaunchError> {
        let (secret, genesis) = (self.operator()?, Genesis::from_bytes(rand::random()));
        let place = Place { site: SITE.parse().map_err(invalid)?, shard: ShardId::FIRST, genesis };
        let name = SITE.parse().map_err(invalid)?;
        let first = FirstOperator { place, operator: secret.key(), name }.sign(&secret).map_err(invalid)?;
        Ok((genesis, first))
    }
}
