//! The first operator of a testnet: its key is in the testnet's directory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use skep_client::{FirstOperator, Genesis, OperatorSecret, Place, ShardId, SignedFirst};

use super::{LaunchError, SITE, Testnet, io_error};

fn invalid(what: impl std::fmt::Display) -> LaunchError {
    LaunchError::Command { command: "the first operator of a testnet".to_owned(), output: what.to_string() }
}

/// The 32 bytes of 64 hexadecimal digits.
fn seed_of(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Vec<u8> = digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    if text.len() == 64 { bytes.try_into().ok() } else { None }
}

impl Testnet {
    /// The file with the key of the shard's first operator.
    pub fn operator_key(&self) -> PathBuf {
        self.layout.dir.join("operator.key")
    }

    /// The shard's first operator. Its key is made when it is first asked for, and stays in the directory.
    ///
    /// # Errors
    /// [`LaunchError`] if the file cannot be read or made, or holds no key.
    pub fn operator(&self) -> Result<OperatorSecret, LaunchError> {
        let path = self.operator_key();
        let what = || io_error(path.display().to_string());
        if !path.exists() {
            let seed: [u8; 32] = rand::random();
            let text: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(what())?;
            writeln!(file, "{text}").map_err(what())?;
        }
        let text = std::fs::read_to_string(&path).map_err(what())?;
        seed_of(text.trim()).map(|seed| OperatorSecret::from_seed(&seed)).ok_or_else(|| invalid("no operator's key"))
    }

    /// What a new shard is to be.
    pub(super) fn charter(&self) -> Result<(Genesis, SignedFirst), LaunchError> {
        let (secret, genesis) = (self.operator()?, Genesis::from_bytes(rand::random()));
        let place = Place { site: SITE.parse().map_err(invalid)?, shard: ShardId::FIRST, genesis };
        let name = SITE.parse().map_err(invalid)?;
        let first = FirstOperator { place, operator: secret.key(), name }.sign(&secret).map_err(invalid)?;
        Ok((genesis, first))
    }
}
