//! Who voted in each shard when this node last heard of it: for the next process of a node without a replica of that
//! shard.
//!
//! The list says which nodes to dial first, and no more. A list that is missing, or cannot be read, counts as none: the
//! node then begins like one that never heard of the shard. The list is synced, since the node needs it most when the
//! power of a whole site returns.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::Voters;
use skep_protocol::limits;
use xxhash_rust::xxh3::xxh3_128;

use super::disk::{Disk, read_all, replace};

/// The voters of as many shards as a node may hear of take less: a number and seven PeerIds of 52 characters each.
const BYTES_MAX: u64 = 32 * 1024;

/// The voters of each shard.
pub type KnownVoters = BTreeMap<ShardId, Voters>;

/// A file of one line for each shard, with its number and its voters, below a checksum of all of them.
#[derive(Clone)]
pub struct VoterList {
    disk: Arc<dyn Disk>,
    path: Arc<PathBuf>,
}

impl VoterList {
    pub(super) fn at(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, path: Arc::new(dir.join("voters")) }
    }

    /// Saves the list for the next process, in place of the former one.
    ///
    /// # Errors
    /// What the operating system said; then the former list is still there.
    pub fn save(&self, known: &KnownVoters) -> io::Result<()> {
        let line = |(shard, voters): (&ShardId, &Voters)| {
            let voters: String = voters.iter().map(|node| format!(" {node}")).collect();
            format!("{}{voters}\n", shard.0)
        };
        let lines: String = known.iter().map(line).collect();
        replace(&*self.disk, &self.path, &[checksum(&lines).as_bytes(), b"\n", lines.as_bytes()])
    }

    /// Returns the saved list; an empty one, and a line in the node's log, if the file cannot be used.
    pub fn load(&self) -> KnownVoters {
        let read = read_all(&*self.disk, &self.path, BYTES_MAX);
        let why = match read {
            Ok(bytes) => match parse(&bytes) {
                Some(known) => return known,
                None => "it is damaged".to_owned(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return KnownVoters::new(),
            Err(error) => error.to_string(),
        };
        let what = "the list of voters cannot be used: every peer that is marked as a voter is dialled";
        tracing::warn!(path = %self.path.display(), why, "{what}");
        KnownVoters::new()
    }
}

fn checksum(lines: &str) -> String {
    format!("{:032x}", xxh3_128(lines.as_bytes()))
}

/// The voters in a list, if the list is whole.
fn parse(bytes: &[u8]) -> Option<KnownVoters> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (sum, lines) = text.split_once('\n')?;
    if sum != checksum(lines) {
        return None;
    }
    let shard = |line: &str| {
        let mut words = line.split(' ');
        let shard = words.next()?.parse::<u32>().ok().map(ShardId)?;
        let voters: Option<Vec<NodeId>> = words.map(|word| word.parse::<NodeId>().ok()).collect();
        Some((shard, Voters::of(voters?)))
    };
    lines.lines().take(limits::SHARDS_PER_NODE_MAX).map(shard).collect()
}

#[cfg(test)]
mod tests {
    use super::super::disk::SystemDisk;
    use super::*;

    fn list(dir: &Path) -> VoterList {
        VoterList::at(Arc::new(SystemDisk), dir)
    }

    fn voters(nodes: impl IntoIterator<Item = u8>) -> Voters {
        Voters::of(nodes.into_iter().map(|n| NodeId::from_public_key([n; 32])))
    }

    #[test]
    fn what_was_left_last_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(dir.path()).load(), KnownVoters::new());
        for known in [
            KnownVoters::from([(ShardId(1), voters([1, 2, 3])), (ShardId(7), voters([3, 4, 5]))]),
            KnownVoters::from([(ShardId(1), voters([2]))]),
            KnownVoters::new(),
        ] {
            list(dir.path()).save(&known).unwrap();
            assert_eq!(list(dir.path()).load(), known);
        }
    }

    #[test]
    fn as_many_as_a_node_may_hear_of_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let shard = |n: u32| (ShardId(u32::MAX - n), voters(0..limits::VOTERS_MAX as u8));
        let known: KnownVoters = (0..limits::SHARDS_PER_NODE_MAX as u32).map(shard).collect();
        list(dir.path()).save(&known).unwrap();
        assert_eq!(list(dir.path()).load(), known);
    }

    #[test]
    fn a_list_that_is_cut_or_damaged_anywhere_is_no_list() {
        let dir = tempfile::tempdir().unwrap();
        let list = list(dir.path());
        list.save(&KnownVoters::from([(ShardId(1), voters([1, 2, 3]))])).unwrap();
        let whole = std::fs::read(&*list.path).unwrap();
        let of = |bytes: &[u8]| {
            std::fs::write(&*list.path, bytes).unwrap();
            list.load()
        };
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert_eq!(of(&flipped), KnownVoters::new(), "byte {at}");
            assert_eq!(of(&whole[..at]), KnownVoters::new(), "cut at {at}");
        }
        assert_eq!(of(&vec![b'7'; 1 << 20]), KnownVoters::new());
    }
}
