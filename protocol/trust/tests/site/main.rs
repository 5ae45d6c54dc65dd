//! A site with proper members, and others that try to pass for members.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admissions;
mod chains;
mod hall;
mod joins;
mod news;
mod revocations;
mod roots;
