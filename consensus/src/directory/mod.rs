//! The directory of the site, as a node asks it: at its leader, wherever that is.
//!
//! What is asked twice changes nothing more: requests of the directory say whom they concern, and certificates have
//! serials. So an answer that is lost is asked for again.

mod issue;
mod reach;
mod registrar;
mod renew;

#[cfg(test)]
mod tests;

pub(crate) use reach::Directory;
