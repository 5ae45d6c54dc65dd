//! What the directory tells of the site.

use std::ops::Bound;

use skep_protocol::limits;
use skep_protocol::site::{
    InvitationState, PendingRevocation, SiteAnswer, SiteInvitation, SiteJoin, SiteKey, SiteMember, SiteQuery,
    SiteSummary,
};
use skep_trust::{PublicKey, SiteTime};

use super::Site;
use super::invitations::State;
use super::members::Membership;

/// About how many bytes an item takes beside the statements in it.
const ITEM_BYTES: u64 = 256;

impl Site {
    /// The answer to a query at a site time, of about so many bytes.
    pub(crate) fn answer(&self, query: &SiteQuery, now: SiteTime, bytes_max: u64) -> SiteAnswer {
        match query {
            SiteQuery::Summary => SiteAnswer::Summary(Box::new(self.summary(now))),
            SiteQuery::Members { after, limit } => {
                let members = self.members.all.range(from(*after)).map(|(key, member)| view_of(key, member));
                let (members, more) = page(members, *limit, bytes_max, |member| member.chain.len());
                SiteAnswer::Members { next: members.last().map(|last| last.key).filter(|_| more), members }
            }
            SiteQuery::Member(key) => {
                let key = PublicKey::from(*key);
                SiteAnswer::Member(self.members.get(&key).map(|member| Box::new(view_of(&key, member))))
            }
            SiteQuery::Invitations { after, limit } => {
                let open = self.invitations.all.range(from(*after)).filter(|(_, invited)| invited.is_open(now));
                let open = open.map(|(key, invited)| SiteInvitation {
                    key: SiteKey::from(*key),
                    sealed: invited.sealed.to_bytes(),
                    since_ms: invited.since.0,
                });
                let (invitations, more) = page(open, *limit, bytes_max, |invitation| invitation.sealed.len());
                SiteAnswer::Invitations { next: invitations.last().map(|last| last.key).filter(|_| more), invitations }
            }
            SiteQuery::Revocations { after, limit } => {
                let bounds: (Bound<u64>, Bound<u64>) = (Bound::Excluded(*after), Bound::Unbounded);
                let later = self.believed.order.range(bounds).map(|(number, signed)| (*number, signed.to_bytes()));
                let (revocations, more) = page(later, *limit, bytes_max, |(_, signed)| signed.len());
                SiteAnswer::Revocations { next: revocations.last().map(|last| last.0).filter(|_| more), revocations }
            }
            SiteQuery::Roots { after } => {
                let documents = self.believed.view.documents_after(*after);
                let documents = documents.map(|document| (document.version, document.to_bytes()));
                let (documents, more) = page(documents, u32::MAX, bytes_max, |(_, document)| document.len());
                let next = documents.last().map(|last| last.0).filter(|_| more);
                SiteAnswer::Roots { documents: documents.into_iter().map(|(_, document)| document).collect(), next }
            }
            SiteQuery::Join { invitation } => SiteAnswer::Join(self.join(*invitation, now).map(Box::new)),
        }
    }

    fn summary(&self, now: SiteTime) -> SiteSummary {
        let believed = &self.believed;
        let pending = believed.pending.iter().map(|pending| PendingRevocation {
            revocation: pending.signed.to_bytes(),
            voters: pending.waits.iter().map(|key| SiteKey::from(*key)).collect(),
        });
        SiteSummary {
            site: *believed.view.root().site().as_bytes(),
            root_version: believed.view.root().document().version,
            epoch_min: believed.view.epoch_min(),
            now_ms: now.0,
            members: self.members.all.len() as u64,
            invitations: self.invitations.all.values().filter(|invited| invited.is_open(now)).count() as u64,
            revocations: believed.count,
            pending: pending.collect(),
        }
    }

    fn join(&self, invitation: SiteKey, now: SiteTime) -> Option<SiteJoin> {
        let key = PublicKey::from(invitation);
        let invited = self.invitations.get(&key)?;
        let state = match &invited.state {
            State::Open if invited.is_open(now) => InvitationState::Open,
            State::Redeemed { request, is_void: false } => {
                let member = self.members.get(&request.node).filter(|member| member.own.invitation == Some(key));
                let member = member.map(|member| Box::new(view_of(&request.node, member)));
                InvitationState::Redeemed { request: request.to_bytes(), member }
            }
            State::Open | State::Ended(_) | State::Redeemed { is_void: true, .. } => InvitationState::Ended,
        };
        let epoch = self.believed.view.epoch_min();
        Some(SiteJoin { invitation: invited.sealed.to_bytes(), state, epoch, now_ms: now.0 })
    }
}

fn view_of(key: &PublicKey, member: &Membership) -> SiteMember {
    SiteMember {
        key: SiteKey::from(*key),
        chain: member.chain.to_bytes(),
        since_ms: member.since.0,
        until_ms: member.validity().until.0,
        addresses: member.addresses,
    }
}

/// The bounds of a list from after a key on.
fn from(after: Option<SiteKey>) -> (Bound<PublicKey>, Bound<PublicKey>) {
    (after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.into())), Bound::Unbounded)
}

/// As many as one page holds, by count and by bytes, and one at least; also whether there are more.
fn page<T>(
    items: impl Iterator<Item = T>,
    limit: u32,
    bytes_max: u64,
    bytes_of: impl Fn(&T) -> usize,
) -> (Vec<T>, bool) {
    let count = (limit as usize).clamp(1, limits::PAGE_ITEMS_MAX);
    let (mut page, mut bytes) = (Vec::new(), 0_u64);
    for item in items {
        bytes = bytes.saturating_add(bytes_of(&item) as u64 + ITEM_BYTES);
        if page.len() == count || (bytes > bytes_max && !page.is_empty()) {
            return (page, true);
        }
        page.push(item);
    }
    (page, false)
}
