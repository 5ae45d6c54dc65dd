//! The source of random numbers.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// A source of random numbers. The system seeds it; in a simulation the seed of the run does. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Chance(Arc<Mutex<SmallRng>>);

impl Default for Chance {
    fn default() -> Self {
        Self::seeded(rand::random())
    }
}

impl Chance {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}
