//! What a running node knows of its site, for both planes at once.
//!
//! - All parts of a node that hold connections share a [`SiteHandle`]: what one of them learns, all of them judge by.
//! - The node's composition root [gives](SiteHandle::keep_with) the function that writes down what the node learned.
//! - Another function writes down the chain that the node [shows](SiteHandle::keep_own_with) once it has renewed its
//!   certificate.
//!
//! **Contract.** What a node knows only grows: it never takes back a root document, an epoch or a revocation. It writes
//! down what it learned before it judges any link by it; if it cannot write, it judges links by it all the same, and
//! writes it with what it learns next.
//!
//! **Must not know** files, connections, timers or clocks: the node tells what time it is.

mod handle;
mod keeper;
mod known;
mod shown;

pub use handle::SiteHandle;
pub use keeper::KeepError;
pub use known::LearnError;
