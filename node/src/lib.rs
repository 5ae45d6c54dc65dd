//! The Skep node: composition root, driver, and command line.
//!
//! [`main`] is the whole program; the binary calls nothing else, and tests call [`main_of`]. `run` runs a node
//! until it is told to stop, `node` binds, spawns and drains its parts, `driver` is the one place where consensus,
//! engine, mesh and API meet once they run, and `cli` has one file or folder per noun. `checks` has those who check a run
//! see what consensus and mesh do.

mod checks;
mod cli;
mod descriptors;
mod driver;
mod node;
mod private;
mod run;
mod token;

pub use cli::{main, main_of};
