//! What the configuration says of a store.

use skep_config::StoreConfig;
use skep_store::{HistoryOptions, StoreOptions};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The options of a store, from the configuration.
pub(crate) fn store_options(config: &StoreConfig) -> StoreOptions {
    StoreOptions {
        segment_bytes: config.segment_bytes,
        low_water_bytes: config.low_water_bytes,
        history: HistoryOptions {
            retention_ms: config.history_days.saturating_mul(DAY_MS),
            bytes_max: config.history_bytes,
        },
        ..StoreOptions::default()
    }
}
