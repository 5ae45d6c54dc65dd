//! What simulated robots have to do, and where.

mod builtin;
mod floor;
mod load;
mod lorr;
mod orders;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use builtin::builtin;
pub use floor::{Cell, Floor};
pub use load::{Done, Load};
pub use lorr::load_problem;
pub(crate) use orders::{Orders, Progress, held};

/// A workload: a floor, where robots start, and orders for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// For people.
    pub name: String,
    /// Where robots walk.
    pub floor: Floor,
    /// Where each robot starts.
    pub starts: Vec<Cell>,
    /// The cells that each order visits, in order.
    pub orders: Vec<Vec<Cell>>,
    /// Orders that are open at a time, per robot.
    pub reveal: f64,
}

/// What the payload of an order's task holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPayload {
    /// The cells to visit, in order.
    pub errands: Vec<Cell>,
}

/// Why a workload cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}{}: {why}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where in it.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
    /// There is too little of it.
    #[error("{what}: {asked} are asked for and there are {there}")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many are wanted.
        asked: usize,
        /// How many there are.
        there: usize,
    },
}
