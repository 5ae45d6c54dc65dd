//! Members of a site, and what shows that they are.
//!
//! Pure: no IO, no clock, no random number, no async, no order that depends on a hash. What is sealed here is made and
//! verified by arguments alone, at whichever end of a connection, with a network or by file.
//!
//! - [`SiteRoot`] follows the root documents of a site, each by the word of the one before it.
//! - [`Certificate`], [`Invitation`], [`JoinRequest`] and [`Revocation`] are what is sealed; [`Sealed`] keeps the
//!   bytes.
//! - [`InvitationCode`] is the one line that an operator gives to a new machine.
//! - [`Chain`] is what a member shows, and [`Admission`] says whether a node lets it in. Both planes ask the same one.
//! - [`SiteNews`] is what one member tells another one of who is out.
//!
//! **Contract.** Decoding never panics and never allocates more than its input warrants. Every refusal has a type.
//! Nothing holds because of a name: statements name the site by its hash, and their signers by their keys.
//!
//! **Must not know** tokio, openraft, quinn, libp2p, tonic, rand, files or clocks.

// A new variant gets its meaning where the others have theirs. Tests look at one of them.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod admission;
mod agents;
mod bech32;
mod certificate;
mod chain;
mod code;
mod hello;
mod ids;
mod invitation;
mod join;
mod keys;
mod links;
mod news;
mod reply;
mod revocation;
mod revocations;
mod role;
mod root;
mod sealed;
mod site_time;
mod view;
pub mod wire;

pub use admission::{Admission, Admitted, Refusal, judge};
pub use agents::{AgentPattern, AgentPatternError};
pub use bech32::CodeTextError;
pub use certificate::{Certificate, Grants};
pub use chain::Member;
pub use code::{CodeError, InvitationCode, InvitationSecret};
pub use hello::{TrustHello, TrustNews};
pub use ids::{Channel, Digest, Serial, SiteHalf, SiteId};
pub use invitation::Invitation;
pub use join::{JoinRefusal, JoinRequest, Knock, Used, redeem};
pub use keys::{PublicKey, SecretKey};
pub use links::{Chain, ChainError, ChainLink, Sponsor};
pub use news::SiteNews;
pub use reply::{JoinError, JoinReply, Joined, MemberAddress};
pub use revocation::{Revocation, RevocationError, Revoked, SignedRevocation};
pub use revocations::Revocations;
pub use role::{Role, Roles, Scope, ScopeError};
pub use root::{RootDocument, RootError, SiteRoot};
pub use sealed::{Seal, Sealed, Stated};
pub use site_time::{SiteClock, SiteTime, Standing, Validity};
pub use view::SiteView;
