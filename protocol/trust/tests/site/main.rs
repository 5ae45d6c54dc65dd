//! A site whose members are who they should be, and all others that try to be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admissions;
mod chains;
mod hall;
mod joins;
mod news;
mod revocations;
mod roots;
