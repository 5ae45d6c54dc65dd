//! The Skep node: composition root, driver, and command line.
//!
//! [`main`] is the whole program; the binary calls nothing else, and tests call [`main_of`]. `run` builds the parts and
//! drains them, `driver` is the one place where consensus, engine, mesh and API meet, and `cli` has one file per noun.

mod checks;
mod cli;
mod descriptors;
mod driver;
mod private;
mod run;
mod views;

pub use cli::{main, main_of};
