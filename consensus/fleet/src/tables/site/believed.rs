//! What the directory believes: root documents and revocations.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use skep_trust::{PublicKey, Revoked, SignedRevocation, SiteView};

/// A revocation that waits for voters to leave their office.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) signed: Arc<SignedRevocation>,
    /// Keys of the voters for which it waits.
    pub(super) waits: BTreeSet<PublicKey>,
    /// Keys of the voters that have left.
    pub(super) left: BTreeSet<PublicKey>,
}

/// What the directory believes of the site.
#[derive(Clone, Debug)]
pub(super) struct Believed {
    pub(super) view: Arc<SiteView>,
    /// Number of all revocations that ever came.
    pub(super) count: u64,
    /// The revocations that are needed, each with its number.
    pub(super) order: OrdMap<u64, Arc<SignedRevocation>>,
    /// Revocations that wait, in the order in which they came. Few.
    pub(super) pending: Vec<Arc<Pending>>,
}

impl Believed {
    pub(super) fn new(view: Arc<SiteView>) -> Self {
        Self { view, count: 0, order: OrdMap::new(), pending: Vec::new() }
    }

    /// The view with one more revocation in it.
    pub(super) fn with(&mut self, view: SiteView, signed: SignedRevocation) {
        self.count += 1;
        self.order.insert(self.count, Arc::new(signed));
        self.now(view);
    }

    /// Takes another view: what it makes needless goes.
    pub(super) fn now(&mut self, view: SiteView) {
        let (before, epoch_min) = (self.view.epoch_min(), view.epoch_min());
        self.view = Arc::new(view);
        if epoch_min > before {
            let needed = self.order.iter().filter(|(_, signed)| signed.revocation.is_needed(epoch_min));
            self.order = needed.map(|(number, signed)| (*number, Arc::clone(signed))).collect();
        }
    }

    /// The revocation that waits under this name.
    pub(super) fn pending(&self, signed: &SignedRevocation) -> Option<&Pending> {
        let name = signed.revocation.digest();
        self.pending.iter().find(|pending| pending.signed.revocation.digest() == name).map(Arc::as_ref)
    }

    /// Keys of the voters for which revocations wait.
    pub(super) fn waited_for(&self) -> impl Iterator<Item = &PublicKey> {
        self.pending.iter().flat_map(|pending| &pending.waits)
    }

    /// Whether a member is to be revoked, or what an issuer issues, once voters have left their office.
    pub(super) fn is_to_be_out(&self, key: &PublicKey) -> bool {
        self.pending.iter().any(|pending| {
            let is_named = match pending.signed.revocation.what {
                Revoked::Key(named) | Revoked::Issued { issuer: named, .. } => named == *key,
                Revoked::Serial(_) | Revoked::BelowEpoch(_) => false,
            };
            is_named || pending.waits.contains(key) || pending.left.contains(key)
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        const REVOCATION: u64 = 1_024;
        const ROOT: u64 = 2_048;
        let documents = self.view.documents_after(0).count() as u64;
        documents * ROOT + (self.order.len() + self.pending.len()) as u64 * REVOCATION
    }
}
