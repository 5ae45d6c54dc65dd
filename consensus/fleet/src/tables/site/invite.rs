//! How an operator invites a node, and how a node redeems that.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{SiteChange, SiteKey, SiteReceipt, SiteRefusal, SiteStatement};
use skep_protocol::text::NodeName;
use skep_trust::{Grants, Invitation, JoinRequest, PublicKey, Role, Sealed, Used, redeem};

use super::Site;
use super::invitations::{Invited, State};
use super::refused::{of_join, read, reason};
use crate::state::changes::Cx;

impl Site {
    /// Takes an operator's invitation. The same invitation again changes nothing.
    pub(super) fn invite(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        let what = SiteStatement::Invitation;
        let sealed: Sealed<Invitation> = read(what, bytes)?;
        if sealed.site != self.believed.view.root().site() {
            return Err(SiteRefusal::OtherSite { what }.into());
        }
        self.check_operator(sealed.operator, &sealed.grants)?;
        if !sealed.holds() {
            return Err(SiteRefusal::NotSealed { what }.into());
        }
        let key = sealed.key;
        let receipt = SiteReceipt::Invited { invitation: key.into() };
        if let Some(known) = self.invitations.get(&key) {
            return if known.sealed != sealed {
                Err(SiteRefusal::InvitationExists { invitation: key.into() }.into())
            } else if let Some(node) = known.node() {
                Err(SiteRefusal::InvitationUsed { node: node.into() }.into())
            } else {
                self.check_not_ended(known).map(|()| receipt)
            };
        }
        let invited = Invited { sealed, since: self.time, state: State::Open };
        self.check_not_ended(&invited)?;
        let given_ms = invited.sealed.until.0.saturating_sub(self.time.0);
        if given_ms > cx.limits.invitation_life_ms_max {
            return Err(SiteRefusal::InvitationTooLong { given_ms, max_ms: cx.limits.invitation_life_ms_max }.into());
        }
        let (name, operator) = (invited.sealed.grants.name.clone(), invited.sealed.operator.into());
        self.check_name(&name, invited.sealed.node)?;
        self.make_room_for_invitation(cx)?;
        self.invitations.all.insert(key, invited);
        cx.record(SiteChange::Invited { invitation: key.into(), name, operator, sealed: bytes.to_vec() });
        Ok(receipt)
    }

    /// Lets a node redeem an invitation. The first node gets it.
    pub(super) fn redeem(
        &mut self,
        invitation: SiteKey,
        node: SiteKey,
        bytes: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<SiteReceipt, Refusal> {
        let what = SiteStatement::JoinRequest;
        // Checked before anything is read, and long before a signature is verified.
        let known = self.invitations.get(&invitation.into()).ok_or(SiteRefusal::NoSuchInvitation { invitation })?;
        if let State::Ended(_) = known.state {
            self.check_not_ended(known)?;
        }
        let request: Sealed<JoinRequest> = read(what, bytes)?;
        if request.invitation != PublicKey::from(invitation) || request.node != PublicKey::from(node) {
            let why = reason(&"it names another invitation, or another node, than what is said beside it");
            return Err(SiteRefusal::Malformed { what, why }.into());
        }
        let (used, is_void) = match &known.state {
            State::Redeemed { request, is_void } => {
                (Some(Used { node: request.node, request: request.digest() }), *is_void)
            }
            State::Open | State::Ended(_) => (None, false),
        };
        let used = used.filter(|_| !is_on(Mutant::InvitationUsedTwice));
        redeem(&known.sealed, &request, used, self.time).map_err(of_join)?;
        let (grants, operator) = (known.sealed.grants.clone(), known.sealed.operator);
        let until = known.sealed.until;
        if is_void {
            return Err(SiteRefusal::Revoked { key: node, why: reason(&"it was revoked, or left") }.into());
        }
        self.check_key(request.node, cx)?;
        let receipt = SiteReceipt::Redeemed { invitation, node };
        if used.is_some() {
            return Ok(receipt);
        }
        self.check_operator(operator, &grants)?;
        self.check_name(&grants.name, Some(request.node))?;
        self.members.forget_names(self.time);
        self.members.hold_name(&grants.name, request.node, until);
        self.invitations.set_state(&invitation.into(), State::Redeemed { request: Box::new(request), is_void: false });
        cx.record(SiteChange::Redeemed { invitation, node, name: grants.name, request: bytes.to_vec() });
        Ok(receipt)
    }

    /// Checks that an operator may invite such a member.
    fn check_operator(&self, key: PublicKey, grants: &Grants) -> Result<(), SiteRefusal> {
        let refused = |why: &str| SiteRefusal::NotOperator { operator: key.into(), why: reason(&why) };
        let view = &self.believed.view;
        let document = view.root().document();
        if document.operators.contains_key(&key) {
            let is_revoked = view.revocations().revokes_key(&key, view.epoch_min());
            return if is_revoked { Err(refused("it was revoked")) } else { Ok(()) };
        }
        let operator = self.members.get(&key).filter(|member| member.is(Role::Operator));
        let operator = operator.ok_or_else(|| refused("the site knows no such operator"))?;
        if operator.is_out(view) || operator.is_over(self.time) || self.believed.is_to_be_out(&key) {
            return Err(refused("its certificate does not hold any more"));
        }
        if grants.needs_sponsor() {
            return Err(refused(
                "the root document does not name it, and the invitation is for more than a robot's node",
            ));
        }
        Ok(())
    }

    /// Checks that a node may redeem an invitation, as far as time goes.
    fn check_not_ended(&self, invited: &Invited) -> Result<(), Refusal> {
        let why = match invited.state {
            State::Ended(why) => reason(&format!("it was ended: {}", why.name())),
            State::Open | State::Redeemed { .. } if self.time > invited.sealed.until => {
                reason(&format!("it ended at {}", invited.sealed.until))
            }
            State::Open | State::Redeemed { .. } => return Ok(()),
        };
        Err(SiteRefusal::InvitationEnded { why }.into())
    }

    /// Checks that no other node has a name.
    pub(super) fn check_name(&self, name: &NodeName, node: Option<PublicKey>) -> Result<(), SiteRefusal> {
        match self.members.other_holder(name, node, self.time) {
            Some(member) => Err(SiteRefusal::NameTaken { name: name.clone(), member: member.into() }),
            None => Ok(()),
        }
    }

    /// Checks that a certificate of a key that is issued in these epochs could hold.
    fn check_key(&self, key: PublicKey, cx: &Cx<'_>) -> Result<(), SiteRefusal> {
        let is_revoked = self.believed.view.revocations().revokes_key(&key, self.epoch_max(cx));
        if is_revoked || self.believed.is_to_be_out(&key) {
            return Err(SiteRefusal::Revoked { key: key.into(), why: reason(&"its key was revoked") });
        }
        Ok(())
    }

    fn make_room_for_invitation(&mut self, cx: &Cx<'_>) -> Result<(), Refusal> {
        if (self.invitations.all.len() as u64) < cx.limits.site_invitations_max {
            return Ok(());
        }
        let members = &self.members;
        let came_by = |key: &PublicKey, node: &PublicKey| {
            members.get(node).is_some_and(|member| member.own.invitation == Some(*key))
        };
        self.invitations.forget_ended(self.time, came_by);
        let count = self.invitations.all.len() as u64;
        if count >= cx.limits.site_invitations_max {
            return Err(Refusal::Full { what: ShardFullOf::SiteInvitations, count });
        }
        Ok(())
    }
}
