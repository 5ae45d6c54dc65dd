//! The rule of admission, the same on both planes: which peers a node lets in, and which it cuts off again.
//!
//! A node verifies the signatures of a chain once for each root document and remembers the chain by hash. It asks each
//! time what can change: whose connection it is, what time it is, and who is out. After an epoch was raised or a member
//! was revoked, the parts that hold links ask [`judge`] of each of them again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use skep_protocol::limits;

use crate::chain::Member;
use crate::ids::Digest;
use crate::keys::PublicKey;
use crate::links::{Chain, ChainError};
use crate::revocation::Revoked;
use crate::root::SiteRoot;
use crate::site_time::{OutOfTime, SiteClock, SiteTime, Standing};
use crate::view::SiteView;

/// A peer that the node lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The member that the peer is.
    pub member: Arc<Member>,
    /// How sure it is that its certificates hold.
    pub standing: Standing,
}

/// Why a node does not let a peer in, or cuts it off again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer's chain of certificates does not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The peer shows the certificate of another member.
    #[error("the peer authenticated as {peer}, and shows the certificate of {named}")]
    WrongKey {
        /// The key with which the peer authenticated.
        peer: PublicKey,
        /// The key in the certificate.
        named: PublicKey,
    },
    /// The peer's certificate is of an epoch that is over.
    #[error("the certificate is of epoch {epoch}, and those before epoch {epoch_min} do not hold; join again")]
    LowerEpoch {
        /// Epoch of the certificate.
        epoch: u64,
        /// The earliest epoch that holds.
        epoch_min: u64,
    },
    /// The peer, or its issuer, was revoked.
    #[error("an operator revoked {what}")]
    Revoked {
        /// The certificates that the operator revoked.
        what: Revoked,
    },
    /// The peer's certificate has ended.
    #[error("the certificate ended at {until} of site time; join again")]
    Expired {
        /// When it ended, in site time.
        until: SiteTime,
    },
    /// The peer's certificate has not begun.
    #[error("the certificate begins at {from} of site time, and that is in the future")]
    NotYetValid {
        /// When it begins, in site time.
        from: SiteTime,
    },
}

impl Refusal {
    /// Name of the kind, for counters and audits: one entry for each kind and peer and minute.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Chain(error) => error.kind(),
            Self::WrongKey { .. } => "wrong-key",
            Self::LowerEpoch { .. } => "lower-epoch",
            Self::Revoked { .. } => "revoked",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
        }
    }
}

/// Checks whether a member whose chain holds is in, by this view and this clock.
///
/// # Errors
/// [`Refusal`] says why not.
pub fn judge(view: &SiteView, member: &Member, clock: SiteClock) -> Result<Standing, Refusal> {
    let epoch_min = view.epoch_min();
    if member.epoch < epoch_min {
        return Err(Refusal::LowerEpoch { epoch: member.epoch, epoch_min });
    }
    if let Some(what) = view.revocations().revoking(member) {
        return Err(Refusal::Revoked { what });
    }
    member.validity.at(clock).map_err(|out| match out {
        OutOfTime::Late => Refusal::Expired { until: member.validity.until },
        OutOfTime::Early => Refusal::NotYetValid { from: member.validity.from },
    })
}

/// The rule, with the chains that the node verified before. Nothing but time depends on what is in it.
#[derive(Debug, Default)]
pub struct Admission {
    known: BTreeMap<Digest, Arc<Member>>,
    /// In the order in which they came.
    order: VecDeque<Digest>,
}

impl Admission {
    /// Checks whether to let in a peer that authenticated with this key, and shows this chain.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn admit(
        &mut self,
        view: &SiteView,
        shown: &Bytes,
        peer: PublicKey,
        clock: SiteClock,
    ) -> Result<Admitted, Refusal> {
        let name = name_of(view.root(), shown);
        let member = match self.known.get(&name) {
            Some(member) => {
                check_key(member.key, peer)?;
                Arc::clone(member)
            }
            None => {
                let chain = Chain::from_bytes(shown)?;
                // Before any signature is verified: no peer has a node verify the chains of others again and again.
                check_key(chain.certificate().ok_or(ChainError::Empty)?.key, peer)?;
                let member = Arc::new(chain.verify(view.root())?);
                self.remember(name, Arc::clone(&member));
                member
            }
        };
        let standing = judge(view, &member, clock)?;
        Ok(Admitted { member, standing })
    }

    fn remember(&mut self, name: Digest, member: Arc<Member>) {
        if self.known.insert(name, member).is_some() {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > limits::CHAINS_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Number of chains that are known to hold.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no chain is known to hold.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// What names a chain under a root document: under another one the node verifies it again.
fn name_of(root: &SiteRoot, shown: &Bytes) -> Digest {
    Sha256::new().chain_update(root.digest()).chain_update(shown).finalize().into()
}

fn check_key(named: PublicKey, peer: PublicKey) -> Result<(), Refusal> {
    if named == peer { Ok(()) } else { Err(Refusal::WrongKey { peer, named }) }
}
