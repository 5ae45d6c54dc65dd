//! What a running node knows of its site, for both planes at once.
//!
//! - [`SiteHandle`] is shared by all who hold connections of a node: what one of them learns, all of them judge by.
//! - What was learned is written down by a function that the node's composition root [gives](SiteHandle::keep_with).
//! - So is the chain that the node [shows](SiteHandle::keep_own_with) once it has renewed its certificate.
//!
//! **Contract.** What is known only grows: no root document, epoch or revocation is ever taken back. What was learned
//! is written down before anybody judges by it; if it cannot be written, links are judged by it all the same, and it
//! is written with what is learned next.
//!
//! **Must not know** files, connections, timers or clocks: the node tells what time it is.

mod handle;
mod keeper;
mod known;
mod shown;

pub use handle::SiteHandle;
pub use keeper::KeepError;
pub use known::LearnError;
