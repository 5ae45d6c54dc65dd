//! The directory of a site: who belongs to it, who is invited, and who is out.
//!
//! It is a table of shard 0. Statements in it are sealed, and the vocabulary of seals is above this crate: here a
//! statement is its bytes. Each replica verifies them where it applies them.

mod change;
mod key;
mod op;
mod query;
mod refusal;

pub use change::{InvitationsEnd, SiteChange};
pub use key::SiteKey;
pub use op::{SiteAddresses, SiteOp, SiteReceipt};
pub use query::{
    InvitationState, PendingRevocation, SiteAnswer, SiteInvitation, SiteJoin, SiteMember, SiteQuery, SiteSummary,
};
pub use refusal::{SiteRefusal, SiteStatement};
