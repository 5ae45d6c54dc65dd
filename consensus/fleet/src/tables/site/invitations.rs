//! Invitations, and the nodes that redeemed them.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use skep_protocol::site::InvitationsEnd;
use skep_trust::{Invitation, JoinRequest, PublicKey, Sealed, SiteTime};

/// The state of an invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum State {
    /// A node may redeem it.
    Open,
    /// A node has redeemed it.
    Redeemed {
        request: Box<Sealed<JoinRequest>>,
        /// Whether the node was revoked, or left: the invitation makes no node a member any more.
        is_void: bool,
    },
    /// It ended before it was used.
    Ended(InvitationsEnd),
}

/// An invitation as the directory knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Invited {
    pub(super) sealed: Sealed<Invitation>,
    /// Since when the directory knows it, in site time.
    pub(super) since: SiteTime,
    pub(super) state: State,
}

impl Invited {
    /// Whether a node may redeem it at a time, by when it ends.
    pub(super) fn is_open(&self, now: SiteTime) -> bool {
        matches!(self.state, State::Open) && now <= self.sealed.until
    }

    /// Key of the node that has redeemed it; none if none has.
    pub(super) fn node(&self) -> Option<PublicKey> {
        match &self.state {
            State::Redeemed { request, .. } => Some(request.node),
            State::Open | State::Ended(_) => None,
        }
    }
}

/// All invitations that the directory remembers. It remembers one that was used, or ended early, until its end: stated
/// again, it would be open again.
#[derive(Clone, Debug, Default)]
pub(super) struct Invitations {
    pub(super) all: OrdMap<PublicKey, Invited>,
}

impl Invitations {
    pub(super) fn get(&self, key: &PublicKey) -> Option<&Invited> {
        self.all.get(key)
    }

    pub(super) fn set_state(&mut self, key: &PublicKey, state: State) {
        if let Some(invited) = self.all.get_mut(key) {
            invited.state = state;
        }
    }

    /// Ends the open ones that `is_meant` names. Returns how many.
    pub(super) fn end_open(&mut self, why: InvitationsEnd, is_meant: impl Fn(&Invitation) -> bool) -> u32 {
        let open = self.all.iter().filter(|(_, invited)| matches!(invited.state, State::Open));
        let meant = open.filter(|(_, invited)| is_meant(invited.sealed.statement()));
        let keys: Vec<PublicKey> = meant.map(|(key, _)| *key).collect();
        for key in &keys {
            self.set_state(key, State::Ended(why));
        }
        u32::try_from(keys.len()).unwrap_or(u32::MAX)
    }

    /// What a node has redeemed makes it a member no more.
    pub(super) fn void_all_of(&mut self, node: PublicKey) {
        let of_node = self.all.iter().filter(|(_, invited)| invited.node() == Some(node));
        for key in of_node.map(|(key, _)| *key).collect::<Vec<PublicKey>>() {
            if let Some(Invited { state: State::Redeemed { is_void, .. }, .. }) = self.all.get_mut(&key) {
                *is_void = true;
            }
        }
    }

    /// Forgets those that are past their end, but for those by which, as `is_needed` says, a member came.
    pub(super) fn forget_ended(&mut self, now: SiteTime, is_needed: impl Fn(&PublicKey, &PublicKey) -> bool) {
        let ended = self.all.iter().filter(|(key, invited)| {
            now > invited.sealed.until && !invited.node().is_some_and(|node| is_needed(key, &node))
        });
        for key in ended.map(|(key, _)| *key).collect::<Vec<PublicKey>>() {
            self.all.remove(&key);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        const INVITATION: u64 = 1_024;
        self.all.len() as u64 * INVITATION
    }
}
