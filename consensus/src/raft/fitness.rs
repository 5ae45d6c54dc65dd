//! Whether this build can apply what the shard has agreed on.
//!
//! A replica never guesses at an entry, and never leaves one out: its state would then differ from the others'. It
//! stops at the first entry that it cannot apply, says so, and takes no further part. openraft goes on with its own
//! records, since what was committed stays committed. So the node starts, and serves other shards, and another build
//! finds all that it needs in the log.

use std::fmt;
use std::sync::{Arc, OnceLock};

use skep_protocol::fault::ShardFault;
use skep_protocol::fleet::FleetVersions;
use skep_protocol::ids::ShardId;

/// Why a replica takes no further part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// The index of the first entry that it did not apply; none if it could not take over the snapshot.
    pub(crate) index: Option<u64>,
    /// The reason as text: what the build cannot do.
    pub(crate) why: String,
}

impl Unfit {
    /// The shard has agreed on a version that this build does not speak.
    pub(crate) fn version(index: u64, version: u32, speaks: FleetVersions) -> Self {
        let why = format!("the shard speaks fleet version {version} from there on, and this Skep speaks {speaks}");
        Self { index: Some(index), why }
    }

    /// An entry is sound, but this build cannot read it.
    pub(crate) fn unread(index: u64, error: &dyn fmt::Display, speaks: FleetVersions) -> Self {
        let why = format!("it is not understood ({error}) by this Skep, which speaks fleet version {speaks}");
        Self { index: Some(index), why }
    }

    /// A snapshot is sound, but this build cannot read it.
    pub(crate) fn snapshot(error: &dyn fmt::Display) -> Self {
        Self { index: None, why: error.to_string() }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "entry {index} cannot be applied: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Whether a replica takes part, shared between the task that applies entries and the tasks that ask. A replica that
/// was lost stays lost in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fitness(Arc<OnceLock<Unfit>>);

impl Fitness {
    /// Why the replica takes no further part; none if it takes part.
    pub(crate) fn unfit(&self) -> Option<&Unfit> {
        self.0.get()
    }

    /// Notes that the replica takes no further part.
    pub(crate) fn lose(&self, shard: ShardId, why: Unfit) {
        let text = why.to_string();
        if self.0.set(why).is_ok() {
            tracing::error!(%shard, "{text}; {}", ShardFault::WrongVersion.advice());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let (fitness, speaks) = (Fitness::default(), FleetVersions { min: 1, max: 2 });
        assert_eq!(fitness.unfit(), None);
        fitness.clone().lose(ShardId::FIRST, Unfit::version(7, 3, speaks));
        fitness.lose(ShardId::FIRST, Unfit::snapshot(&"another"));
        let why = fitness.unfit().map(ToString::to_string).unwrap();
        assert!(why.contains("entry 7") && why.contains("version 3") && why.contains("1 to 2"), "{why}");
    }
}
