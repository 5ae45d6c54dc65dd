//! `skep key`: the keys of operators, and where they are.

mod view;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use skep_client::{Client, Genesis, OperatorSecret, Place, ShardId};
use skep_consensus::{ReadableBy, write_whole};
use skep_protocol::seed::from_digits;
use skep_trust::SecretKey;
use zeroize::Zeroizing;

use super::pin::Pin;
use super::serials::Serials;
use super::{Common, Failure};
use view::View;

/// The file of an operator's key.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyPath {
    /// File of the operator's key [default: $SKEP_OPERATOR_KEY, $XDG_CONFIG_HOME/skep/operator.key,
    /// ~/.config/skep/operator.key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make an operator's key. An existing file is never overwritten
    New {
        #[command(flatten)]
        path: KeyPath,
    },
    /// Print the public key, by which others name the operator
    Show {
        #[command(flatten)]
        path: KeyPath,
    },
}

impl KeyPath {
    fn find(&self) -> Result<PathBuf, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = || variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        let found = self.key.clone().or_else(|| variable("SKEP_OPERATOR_KEY"));
        let found = found.or_else(|| Some(config()?.join("skep").join("operator.key")));
        found.ok_or_else(|| Failure::usage("no key: give --key, or set SKEP_OPERATOR_KEY or HOME"))
    }

    /// The file that remembers the genesis of a shard beside the key.
    pub(crate) fn pin(&self, shard: ShardId) -> Result<Pin, Failure> {
        Ok(Pin::beside(&self.find()?, shard))
    }

    /// The file that remembers the highest number that the key signed for a shard.
    pub(crate) fn serials(&self, genesis: Genesis) -> Result<Serials, Failure> {
        Ok(Serials::beside(&self.find()?, genesis))
    }

    /// The operator's secret, and the shard for which its statements hold: the shard of the given genesis, or the one
    /// for which this key signed before, or, for the first time, the one that the node names.
    pub(crate) async fn for_shard(&self, client: &Client) -> Result<(OperatorSecret, Place), Failure> {
        let (secret, pin) = (self.load()?, self.pin(client.shard())?);
        let place = client.place().await?;
        if client.genesis().is_none() {
            pin.check(place.genesis)?;
        }
        Ok((secret, place))
    }

    /// The operator's secret.
    pub(crate) fn load(&self) -> Result<OperatorSecret, Failure> {
        read(&self.find()?).map(|seed| OperatorSecret::from_seed(&seed))
    }

    /// The operator's key, as it seals statements about a site, and its file.
    pub(crate) fn sealing_key(&self) -> Result<(SecretKey, PathBuf), Failure> {
        let path = self.find()?;
        let seed = read(&path)?;
        Ok((SecretKey::from_seed(&seed), path))
    }

    /// Of what the operator's key is made, and its file: a key that is not there is made.
    pub(crate) fn seed_or_new(&self) -> Result<(Zeroizing<[u8; 32]>, PathBuf), Failure> {
        let path = self.find()?;
        let there = path.try_exists().map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
        let seed = if there { read(&path)? } else { make(&path)? };
        Ok((seed, path))
    }
}

/// Of what the key in a file is made.
fn read(path: &Path) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|e| Failure::failed(format!("{shown}: {e}; 'skep key new' makes a key")))?;
    let mode = std::fs::metadata(path).map_err(|e| Failure::failed(format!("{shown}: {e}")))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::failed(format!("{shown} can be read by others; 'chmod 600 {shown}' it")));
    }
    let seed = from_digits(text.trim());
    seed.ok_or_else(|| Failure::failed(format!("{shown} holds no operator's key; it may be cut off")))
}

fn make(path: &Path) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", path.display()));
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
    write_whole(path, OperatorSecret::text_of(&seed).as_bytes(), ReadableBy::Owner).map_err(failed)?;
    Ok(seed)
}

impl Key {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let (secret, file) = match self {
            Self::New { path } => {
                let file = path.find()?;
                let seed = make(&file)?;
                (OperatorSecret::from_seed(&seed), file)
            }
            Self::Show { path } => (path.load()?, path.find()?),
        };
        View { operator: secret.key().to_string(), file }.print(common.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_its_file_as_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = make(&path).unwrap();
        let found = KeyPath { key: Some(path.clone()) };
        assert_eq!(found.load().unwrap().key(), OperatorSecret::from_seed(&made).key());
        assert_eq!(found.seed_or_new().unwrap(), (made, path.clone()));
        assert!(make(&path).is_err(), "it is never overwritten");
        std::fs::write(&path, "00ff").unwrap();
        assert!(found.load().is_err() && found.seed_or_new().is_err(), "what holds no key is not written over");
    }

    #[test]
    fn a_key_that_is_not_there_is_made_where_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPath { key: Some(dir.path().join("new").join("key")) };
        let (seed, path) = key.seed_or_new().unwrap();
        assert_eq!(path, dir.path().join("new").join("key"));
        assert_eq!(key.load().unwrap().key(), OperatorSecret::from_seed(&seed).key());
    }
}
