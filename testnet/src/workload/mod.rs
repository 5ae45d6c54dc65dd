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
    /// The workload's name, for people.
    pub name: String,
    /// The floor on which robots walk.
    pub floor: Floor,
    /// The cell where each robot starts.
    pub starts: Vec<Cell>,
    /// The cells that each order visits, in order.
    pub orders: Vec<Vec<Cell>>,
    /// How many orders are open at a time, per robot.
    pub reveal: f64,
}

/// The payload of an order's task.
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
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file does not have the right form.
    #[error("{path}{}: {why}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The number of the line; none for the file as a whole.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
    /// The problem has too few items.
    #[error("{what}: {asked} are asked for and there are {there}")]
    TooFew {
        /// The kind of item.
        what: &'static str,
        /// How many the user asked for.
        asked: usize,
        /// How many there are.
        there: usize,
    },
}
