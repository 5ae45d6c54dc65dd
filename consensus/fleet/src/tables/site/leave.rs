//! What a member says of itself: that it leaves, and where it is.

use std::sync::Arc;

use skep_protocol::refusal::Refusal;
use skep_protocol::site::{SiteAddresses, SiteChange, SiteKey, SiteReceipt, SiteRefusal};
use skep_trust::PublicKey;

use super::Site;
use crate::state::changes::Cx;

impl Site {
    /// Lets a member leave. To come back it needs another invitation.
    pub(super) fn leave(&mut self, member: SiteKey, cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        let key = PublicKey::from(member);
        let left = self.members.take(&key).ok_or(SiteRefusal::NoSuchMember { member })?;
        self.invitations.void_all_of(key);
        cx.record(SiteChange::Left { member, name: left.own.grants.name.clone() });
        Ok(SiteReceipt::Left { member })
    }

    /// Takes the addresses that a member says it has.
    pub(super) fn locate(
        &mut self,
        member: SiteKey,
        addresses: SiteAddresses,
        cx: &mut Cx<'_>,
    ) -> Result<SiteReceipt, Refusal> {
        let known = self.members.all.get_mut(&PublicKey::from(member)).ok_or(SiteRefusal::NoSuchMember { member })?;
        if known.addresses != addresses {
            Arc::make_mut(known).addresses = addresses;
            cx.record(SiteChange::Located { member, addresses });
        }
        Ok(SiteReceipt::Located { member })
    }
}
