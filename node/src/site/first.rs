//! The shards with which a site begins: its directory, and its first work shard.
//!
//! 'skep site init' states them once, and the first node makes them when it runs first. The file is the first node's
//! alone: no node that joins has one.

use serde::{Deserialize, Serialize};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::ids::{Genesis, ShardId};
use skep_protocol::operator::{FirstOperator, SignedFirst};
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{OperatorName, SiteName};

/// The shards with which a site begins. Nothing in it is secret.
///
/// The genesis of the directory is not in it: a node that is restored to before its first start makes a directory that
/// no member takes for the site's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FirstShards {
    /// The first operator of the work shard, which names that shard's genesis.
    operator: SignedFirst,
}

impl Encoded for FirstShards {
    const WHAT: &'static str = "first shards of a site";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 4 * 1024;
}

impl FirstShards {
    /// Those of a site with this first operator. `work`, the genesis of the work shard, is random.
    ///
    /// # Errors
    /// [`CodecError`] if the statement of the operator is over its limit.
    pub(crate) fn of(
        site: SiteName,
        work: Genesis,
        (operator, name): (&OperatorSecret, OperatorName),
    ) -> Result<Self, CodecError> {
        let place = Place { site, shard: ShardId::FIRST, genesis: work };
        let operator = FirstOperator { place, operator: operator.key(), name }.sign(operator)?;
        Ok(Self { operator })
    }

    /// Each shard, with its genesis and its first operator. The directory has none: its root document names them.
    /// `directory`, its genesis, is random.
    pub(crate) fn all(&self, directory: Genesis) -> [(ShardId, Genesis, Option<SignedFirst>); 2] {
        let work = (ShardId::FIRST, self.work(), Some(self.operator.clone()));
        [(ShardId::DIRECTORY, directory, None), work]
    }

    /// The genesis of the work shard.
    pub(crate) fn work(&self) -> Genesis {
        self.operator.place.genesis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_begins_with_a_directory_and_a_work_shard_whose_first_operator_signed_for_it() {
        let secret = OperatorSecret::from_seed(&[7; 32]);
        let genesis = |byte| Genesis::from_bytes([byte; 16]);
        let name = OperatorName::new("first").unwrap();
        let first = FirstShards::of("hall".parse().unwrap(), genesis(2), (&secret, name)).unwrap();
        let [(directory, of_directory, none), (work, of_work, operator)] = first.all(genesis(1));
        assert_eq!((directory, of_directory, none), (ShardId::DIRECTORY, genesis(1), None));
        let operator = operator.unwrap();
        assert!(operator.is_signed());
        assert_eq!((work, of_work, operator.place.shard), (ShardId::FIRST, genesis(2), ShardId::FIRST));
        assert_eq!((operator.place.genesis, operator.operator), (genesis(2), secret.key()));
        assert_eq!(FirstShards::decode(&first.encode().unwrap()).unwrap(), first);
    }
}
