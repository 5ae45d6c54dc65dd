//! All that does not hold any more in a site, as far as a node knows.
//!
//! The set only grows: two nodes that tell each other what they have end with the same. One revocation makes others
//! needless, that of all certificates of earlier epochs; the node lets go of those.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use skep_protocol::limits;

use crate::chain::{Made, Member, made};
use crate::ids::{Digest, Serial};
use crate::keys::PublicKey;
use crate::links::Chain;
use crate::revocation::{Revocation, RevocationError, Revoked, SignedRevocation};
use crate::root::SiteRoot;
use crate::site_time::SiteTime;

/// What is revoked, for quick answers: each with the last epoch of certificates that it is about.
#[derive(Clone, Debug, Default)]
struct Index {
    keys: BTreeMap<PublicKey, u64>,
    serials: BTreeMap<Serial, u64>,
    issued: BTreeMap<PublicKey, Vec<(SiteTime, u64)>>,
}

impl Index {
    fn add(&mut self, stated: &Revocation) {
        let later = |epoch: &mut u64| *epoch = stated.epoch.max(*epoch);
        match stated.what {
            Revoked::Key(key) => later(self.keys.entry(key).or_default()),
            Revoked::Serial(serial) => later(self.serials.entry(serial).or_default()),
            Revoked::Issued { issuer, since } => self.issued.entry(issuer).or_default().push((since, stated.epoch)),
            Revoked::BelowEpoch(_) => {}
        }
    }

    fn revokes(&self, made: &Made) -> Option<Revoked> {
        let is_about = |epoch: Option<&u64>| epoch.is_some_and(|epoch| made.epoch <= *epoch);
        if is_about(self.keys.get(&made.key)) {
            return Some(Revoked::Key(made.key));
        }
        if is_about(self.serials.get(&made.serial)) {
            return Some(Revoked::Serial(made.serial));
        }
        let issuer = made.issuer?;
        // What is issued in the name of a key that is out is out as well.
        if is_about(self.keys.get(&issuer)) {
            return Some(Revoked::Key(issuer));
        }
        let issued = self.issued.get(&issuer)?;
        let since = issued.iter().find(|(since, epoch)| made.from >= *since && made.epoch <= *epoch);
        since.map(|(since, _)| Revoked::Issued { issuer, since: *since })
    }
}

/// All revocations that a node knows.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    known: BTreeMap<Digest, Arc<SignedRevocation>>,
    index: Index,
    epoch_min: u64,
    digest: Digest,
}

impl Revocations {
    /// Learns a revocation. Returns whether it was news.
    ///
    /// # Errors
    /// [`RevocationError`] if it does not hold, or if there is no room.
    pub fn learn(&mut self, signed: SignedRevocation, root: &SiteRoot) -> Result<bool, RevocationError> {
        let name = signed.revocation.digest();
        if self.known.contains_key(&name) {
            return Ok(false);
        }
        signed.check(root, self.epoch_min.max(root.document().epoch))?;
        let stated = signed.revocation.statement();
        if !stated.is_needed(self.epoch_min) {
            return Ok(false);
        }
        let epoch_min = match stated.what {
            Revoked::BelowEpoch(epoch) => epoch,
            Revoked::Key(_) | Revoked::Serial(_) | Revoked::Issued { .. } => self.epoch_min,
        };
        // Before anything changes: an epoch that ended without its statement would be told to no other member.
        if self.staying(epoch_min) >= limits::REVOCATIONS_MAX {
            return Err(RevocationError::Full { max: limits::REVOCATIONS_MAX });
        }
        self.forget_below(epoch_min);
        self.index.add(stated);
        combine(&mut self.digest, &name);
        self.known.insert(name, Arc::new(signed));
        Ok(true)
    }

    /// How many revocations stay if certificates of an epoch below this one do not hold.
    fn staying(&self, epoch_min: u64) -> usize {
        if epoch_min == self.epoch_min {
            return self.known.len();
        }
        self.known.values().filter(|signed| signed.revocation.is_needed(epoch_min)).count()
    }

    /// Takes over a revocation that the node learned before, and wrote down: its author may not be an operator any
    /// more. Returns whether it was news.
    pub(crate) fn restore(&mut self, signed: SignedRevocation) -> bool {
        let (name, stated) = (signed.revocation.digest(), signed.revocation.statement());
        if self.known.contains_key(&name) {
            return false;
        }
        self.index.add(stated);
        combine(&mut self.digest, &name);
        self.known.insert(name, Arc::new(signed));
        true
    }

    /// Certificates of an epoch below this one do not hold: other revocations of those are needless, and go.
    pub fn forget_below(&mut self, epoch: u64) {
        if epoch <= self.epoch_min {
            return;
        }
        self.epoch_min = epoch;
        self.known.retain(|_, signed| signed.revocation.is_needed(epoch));
        self.index = Index::default();
        self.digest = Digest::default();
        for (name, signed) in &self.known {
            self.index.add(signed.revocation.statement());
            combine(&mut self.digest, name);
        }
    }

    /// The revocation of a member, or of an issuer above it; none if neither is revoked.
    pub fn revoking(&self, member: &Member) -> Option<Revoked> {
        member.made().iter().find_map(|made| self.index.revokes(made))
    }

    /// Whether all certificates of a key that are of this epoch are revoked.
    pub fn revokes_key(&self, key: &PublicKey, epoch: u64) -> bool {
        self.index.keys.get(key).is_some_and(|of| epoch <= *of)
    }

    /// The revocation of a certificate of a chain, whether or not the chain holds otherwise.
    pub fn revoking_in(&self, chain: &Chain) -> Option<Revoked> {
        chain.links().iter().find_map(|link| self.index.revokes(&made(link.certificate.statement())))
    }

    /// The lowest epoch of which certificates hold.
    pub fn epoch_min(&self) -> u64 {
        self.epoch_min
    }

    /// Number of revocations.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is no revocation.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A digest that tells this set from another one. An operator who may revoke could make two sets that look alike,
    /// and would only withhold what it revoked itself.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// All revocations in the order of their names, from after one of these on.
    pub fn after<'a>(
        &'a self,
        name: Option<&Digest>,
    ) -> impl Iterator<Item = (&'a Digest, &'a Arc<SignedRevocation>)> + use<'a> {
        let first: Bound<&Digest> = name.map_or(Bound::Unbounded, Bound::Excluded);
        let bounds: (Bound<&Digest>, Bound<&Digest>) = (first, Bound::Unbounded);
        self.known.range::<Digest, _>(bounds)
    }
}

fn combine(digest: &mut Digest, name: &Digest) {
    digest.iter_mut().zip(name).for_each(|(byte, of)| *byte ^= of);
}
