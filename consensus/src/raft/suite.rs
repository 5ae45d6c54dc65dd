//! openraft's conformance suite on the real store.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use skep_protocol::fleet::Build;
use skep_protocol::ids::ShardId;
use skep_store::{Store, StoreOptions};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::machine::Machine;
use super::types::TypeConfig;
use crate::clock::ShardClock;
use crate::threads::Threads;

struct RealStore;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for RealStore {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let failed =
            |e: &(dyn std::error::Error + 'static)| StorageError::read(TypeConfig::err_from_string(e.to_string()));
        let dir = tempfile::tempdir().map_err(|e| failed(&e))?;
        let options = StoreOptions { low_water_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(dir.path(), [3; 16], options).map_err(|e| failed(&e))?;
        let shard = ShardId::FIRST;
        let threads = Threads::here();
        let machine = Machine::new(store.clone(), shard, ShardClock::default(), threads.clone(), Build::default());
        Ok((dir, LogStore::new(store, shard, threads), machine))
    }
}

#[test]
fn the_store_passes_openrafts_conformance_suite() {
    TypeConfig::run(async { Suite::test_all(RealStore).await.unwrap() });
}
