//! The directory of a site: members, invitations, revocations and root documents. Only shard 0 has such a table.
//!
//! Statements here are sealed, and each replica verifies them where it applies them: by the same rules by which members
//! let each other in. The directory audits refusals, once for each kind and peer in a minute.
//!
//! Site time counts the milliseconds between the stamps of entries, and nothing else: a lost clock does not move it.

mod audit;
mod believed;
mod invitations;
mod invite;
mod issue;
mod issued;
mod leave;
mod members;
mod refused;
mod revoke;
mod stored;
mod views;

use std::sync::Arc;

use skep_protocol::entry::Charter;
use skep_protocol::refusal::Refusal;
use skep_protocol::site::{InvitationsEnd, SiteChange, SiteKey, SiteOp, SiteReceipt};
use skep_protocol::time::LogInstant;
use skep_trust::{Sealed, SiteTime, SiteView};

use crate::state::changes::Cx;
use audit::Refusals;
use believed::Believed;
use invitations::Invitations;
use issued::Issued;
use members::Members;

pub(crate) use invitations::Invited;
pub(crate) use stored::{SiteHead, StoredMember};

/// The directory of a site.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Site time at the last stamped entry.
    time: SiteTime,
    believed: Believed,
    members: Members,
    invitations: Invitations,
    issued: Issued,
    refusals: Refusals,
}

impl Site {
    /// The site of a charter with its first root document; none if that does not hold, or is not of the site that the
    /// charter names.
    pub(crate) fn found(charter: &Charter, cx: &mut Cx<'_>) -> Option<Self> {
        let document = charter.root.as_ref()?;
        let sealed = Sealed::from_bytes(&document.clone().into()).ok()?;
        let view = SiteView::new(vec![sealed]).ok()?;
        if view.root().document().name != charter.place.site {
            return None;
        }
        cx.record(SiteChange::Founded { document: document.clone() });
        Some(Self::of_view(view))
    }

    /// A site of which the directory believes this, without members.
    fn of_view(view: SiteView) -> Self {
        Self {
            time: SiteTime::default(),
            believed: Believed::new(Arc::new(view)),
            members: Members::default(),
            invitations: Invitations::default(),
            issued: Issued::default(),
            refusals: Refusals::default(),
        }
    }

    /// Counts the time from one stamp of the shard's clock to another. How long it was between two eras is not known,
    /// and does not count.
    pub(crate) fn note_clock(&mut self, before: LogInstant, now: LogInstant) {
        self.time = self.time.plus_ms(now.checked_since_ms(before).unwrap_or(0));
    }

    /// Ends all open invitations: the shard's clock was lost, and whether they are over is not known.
    pub(crate) fn note_lost_clock(&mut self, cx: &mut Cx<'_>) {
        let count = self.invitations.end_open(InvitationsEnd::ClockLost, |_| true);
        Self::tell_ended(count, InvitationsEnd::ClockLost, cx);
    }

    fn tell_ended(count: u32, why: InvitationsEnd, cx: &mut Cx<'_>) {
        if count > 0 {
            cx.record(SiteChange::InvitationsEnded { count, why });
        }
    }

    /// Does what a node or an operator asks of the directory.
    pub(crate) fn apply(&mut self, op: &SiteOp, cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        match op {
            SiteOp::Invite { invitation } => self.invite(invitation, cx),
            SiteOp::Redeem { invitation, node, request } => self.redeem(*invitation, *node, request, cx),
            SiteOp::Issue { certificate } => self.issue(certificate, cx),
            SiteOp::Revoke { revocation } => self.revoke(revocation, cx),
            SiteOp::Root { document } => self.follow_root(document, cx),
            SiteOp::Leave { member } => self.leave(*member, cx),
            SiteOp::Locate { member, addresses } => self.locate(*member, *addresses, cx),
        }
    }

    /// About how many bytes of a snapshot it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.believed.bytes() + self.members.bytes() + self.invitations.bytes() + self.issued.bytes()
    }

    /// What the directory believes of the site.
    pub(crate) fn view(&self) -> &Arc<SiteView> {
        &self.believed.view
    }

    /// Site time at the last stamped entry.
    pub(crate) fn time(&self) -> SiteTime {
        self.time
    }

    /// Keys of the voters that must leave their office before they can be revoked.
    pub(crate) fn to_leave_office(&self) -> impl Iterator<Item = SiteKey> + '_ {
        self.believed.waited_for().map(|key| SiteKey::from(*key))
    }
}
