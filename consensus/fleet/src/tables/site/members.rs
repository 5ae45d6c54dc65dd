//! Members and their names.

use std::sync::Arc;

use imbl::OrdMap;
use skep_protocol::site::SiteAddresses;
use skep_protocol::text::NodeName;
use skep_trust::{Certificate, Chain, PublicKey, Role, SiteTime, SiteView, Validity};

/// A member of the site.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    /// The chain by which it was let in the last time.
    pub(super) chain: Chain,
    /// Its own certificate, the first of the chain.
    pub(super) own: Certificate,
    /// When it became a member, in site time.
    pub(super) since: SiteTime,
    /// The addresses where the member is said to be.
    pub(super) addresses: SiteAddresses,
}

impl Membership {
    /// The membership by a chain; none if the chain has no certificate.
    pub(super) fn new(chain: Chain, since: SiteTime, addresses: SiteAddresses) -> Option<Self> {
        let own = chain.certificate()?.statement().clone();
        Some(Self { chain, own, since, addresses })
    }

    /// The times at which all certificates of its chain hold.
    pub(super) fn validity(&self) -> Validity {
        let all = self.chain.links().iter().map(|link| link.certificate.validity);
        all.fold(self.own.validity, Validity::and)
    }

    /// The earliest epoch of its chain.
    pub(super) fn epoch(&self) -> u64 {
        self.chain.links().iter().map(|link| link.certificate.epoch).fold(self.own.epoch, u64::min)
    }

    /// Whether it may have a vote in a shard.
    pub(super) fn may_vote(&self) -> bool {
        self.is(Role::Voter) || self.is(Role::Witness)
    }

    pub(super) fn is(&self, role: Role) -> bool {
        self.own.grants.roles.contains(&role)
    }

    /// Whether a revocation or an epoch puts it out.
    pub(super) fn is_out(&self, view: &SiteView) -> bool {
        self.epoch() < view.epoch_min() || view.revocations().revoking_in(&self.chain).is_some()
    }

    /// Whether its certificates have ended.
    pub(super) fn is_over(&self, now: SiteTime) -> bool {
        now > self.validity().until
    }
}

/// All members.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) all: OrdMap<PublicKey, Arc<Membership>>,
    /// The holder of each name, and until when: a node that has redeemed an invitation holds one as well.
    pub(super) names: OrdMap<NodeName, (PublicKey, SiteTime)>,
}

impl Members {
    pub(super) fn get(&self, key: &PublicKey) -> Option<&Membership> {
        self.all.get(key).map(Arc::as_ref)
    }

    /// Key of another holder of a name; none if there is none.
    pub(super) fn other_holder(&self, name: &NodeName, key: Option<PublicKey>, now: SiteTime) -> Option<PublicKey> {
        let (holder, until) = self.names.get(name)?;
        (now <= *until && Some(*holder) != key).then_some(*holder)
    }

    /// Gives a name to a key until a time.
    pub(super) fn hold_name(&mut self, name: &NodeName, key: PublicKey, until: SiteTime) {
        let held = self.names.get(name).filter(|(holder, _)| *holder == key).map(|(_, until)| *until);
        self.names.insert(name.clone(), (key, held.map_or(until, |held| held.max(until))));
    }

    /// Frees a name, if that key had it.
    pub(super) fn free_name(&mut self, name: &NodeName, key: PublicKey) {
        if self.names.get(name).is_some_and(|(holder, _)| *holder == key) {
            self.names.remove(name);
        }
    }

    pub(super) fn put(&mut self, membership: Membership) {
        let key = membership.own.key;
        let former = self.all.get(&key).map(|known| known.own.grants.name.clone());
        if let Some(former) = former.filter(|former| *former != membership.own.grants.name) {
            self.free_name(&former, key);
        }
        self.hold_name(&membership.own.grants.name, key, membership.validity().until);
        self.all.insert(key, Arc::new(membership));
    }

    /// Takes a member out, with its name.
    pub(super) fn take(&mut self, key: &PublicKey) -> Option<Arc<Membership>> {
        let member = self.all.remove(key)?;
        self.free_name(&member.own.grants.name, *key);
        Some(member)
    }

    /// The members that a view puts out.
    pub(super) fn out_by(&self, view: &SiteView) -> Vec<Arc<Membership>> {
        self.all.values().filter(|member| member.is_out(view)).cloned().collect()
    }

    /// The member whose certificates ended first of all that have ended.
    pub(super) fn longest_over(&self, now: SiteTime) -> Option<PublicKey> {
        let over = self.all.iter().filter(|(_, member)| member.is_over(now));
        over.min_by_key(|(_, member)| member.validity().until).map(|(key, _)| *key)
    }

    /// Forgets names whose time is over.
    pub(super) fn forget_names(&mut self, now: SiteTime) {
        let ended = self.names.iter().filter(|(_, (_, until))| now > *until).map(|(name, _)| name.clone());
        for name in ended.collect::<Vec<_>>() {
            self.names.remove(&name);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        const MEMBER: u64 = 2_048;
        const NAME: u64 = 128;
        self.all.len() as u64 * MEMBER + self.names.len() as u64 * NAME
    }
}
