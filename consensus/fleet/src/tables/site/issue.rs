//! How a member gets a certificate, the first one and each that follows.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{SiteChange, SiteKey, SiteReceipt, SiteRefusal, SiteStatement};
use skep_trust::{Certificate, Chain, ChainLink, PublicKey, Sealed, Sponsor};

use super::Site;
use super::invitations::{Invited, State};
use super::issued::DAY_MS;
use super::members::Membership;
use super::refused::{of_chain, read, reason};
use crate::state::changes::Cx;

const WHAT: SiteStatement = SiteStatement::Certificate;

impl Site {
    /// Takes a certificate. It says what a redeemed invitation says, or root keys sealed it.
    pub(super) fn issue(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        let sealed: Sealed<Certificate> = read(WHAT, bytes)?;
        let (key, serial, issuer) = (sealed.key, sealed.serial, sealed.issuer);
        let receipt = SiteReceipt::Issued { member: key.into(), serial: *serial.as_bytes() };
        let known = self.members.get(&key);
        if known.is_some_and(|known| known.chain.certificate() == Some(&sealed)) {
            return Ok(receipt);
        }
        let addresses = known.map(|known| known.addresses).unwrap_or_default();
        let since = known.map_or(self.time, |known| known.since);
        let is_new = known.is_none();
        self.check_redeemed(&sealed)?;
        let chain = self.chain_of(sealed).map_err(|error| of_chain(&error, key, issuer))?;
        chain.verify(self.believed.view.root()).map_err(|error| of_chain(&error, key, issuer))?;
        let member =
            Membership::new(chain, since, addresses).ok_or(SiteRefusal::NoSuchMember { member: key.into() })?;
        self.check_holds(&member, cx)?;
        self.issued.note_time(self.time);
        if self.issued.serials.contains_key(&serial) {
            return Err(SiteRefusal::SerialUsed.into());
        }
        let name = member.own.grants.name.clone();
        self.check_name(&name, Some(key))?;
        self.check_day(issuer)?;
        self.make_room_for_member(is_new, cx)?;
        self.issued.put_serial(serial, member.own.validity.until);
        self.issuers_above(issuer).into_iter().flatten().for_each(|issuer| self.issued.count_one(issuer));
        self.members.put(member);
        let (member, issuer) = (SiteKey::from(key), issuer.map(SiteKey::from));
        cx.record(SiteChange::Issued { member, name, issuer, certificate: bytes.to_vec() });
        Ok(receipt)
    }

    /// The latest epoch of which a certificate may be.
    pub(super) fn epoch_max(&self, cx: &Cx<'_>) -> u64 {
        self.believed.view.epoch_min().saturating_add(cx.limits.certificate_epochs_renewed)
    }

    /// Checks that a certificate follows an invitation that its node redeemed, or that root keys sealed it.
    fn check_redeemed(&self, sealed: &Sealed<Certificate>) -> Result<(), SiteRefusal> {
        if sealed.issuer.is_none() {
            return Ok(());
        }
        let refused = |why: &str| SiteRefusal::NotRedeemed { member: sealed.key.into(), why: reason(&why) };
        let invited = sealed.invitation.and_then(|key| self.invitations.get(&key));
        let invited = invited.ok_or_else(|| refused("the directory does not know the invitation that it names"))?;
        let State::Redeemed { request, is_void } = &invited.state else {
            return Err(refused("no node has redeemed the invitation that it names"));
        };
        if request.node != sealed.key {
            return Err(refused("another node has redeemed the invitation that it names"));
        }
        if invited.sealed.grants != sealed.grants {
            return Err(refused("it says what the invitation does not say"));
        }
        if *is_void {
            return Err(SiteRefusal::Revoked { key: sealed.key.into(), why: reason(&"it was revoked, or left") });
        }
        Ok(())
    }

    /// The chain of a member with this certificate: with the invitation that the member redeemed, and with its issuer's
    /// certificate if the root document does not name the issuer.
    fn chain_of(&self, sealed: Sealed<Certificate>) -> Result<Chain, skep_trust::ChainError> {
        let invited = sealed.invitation.and_then(|key| self.invitations.get(&key));
        let sponsor = invited.filter(|_| sealed.grants.needs_sponsor()).and_then(sponsor_of);
        let is_named = |issuer: &PublicKey| self.believed.view.root().document().issuers.contains_key(issuer);
        let above = sealed.issuer.filter(|issuer| !is_named(issuer) && *issuer != sealed.key);
        let above = above.and_then(|issuer| self.members.get(&issuer)).and_then(|of| of.chain.links().first().cloned());
        let own = ChainLink { certificate: sealed, sponsor };
        Chain::new(std::iter::once(own).chain(above).collect())
    }

    /// Checks that a certificate whose chain holds under the root document holds at this moment.
    fn check_holds(&self, member: &Membership, cx: &Cx<'_>) -> Result<(), SiteRefusal> {
        let (view, key) = (&self.believed.view, SiteKey::from(member.own.key));
        let (min, max) = (view.epoch_min(), self.epoch_max(cx));
        let is_early = member.epoch() < min && !is_on(Mutant::EpochNotChecked);
        if is_early || member.own.epoch > max {
            let given = if is_early { member.epoch() } else { member.own.epoch };
            return Err(SiteRefusal::WrongEpoch { what: WHAT, given, min, max });
        }
        if let Some(what) = view.revocations().revoking_in(&member.chain) {
            return Err(SiteRefusal::Revoked { key, why: reason(&format!("an operator revoked {what}")) });
        }
        if self.believed.is_to_be_out(&member.own.key) {
            let why = reason(&"it is revoked as soon as it has left its office as a voter");
            return Err(SiteRefusal::Revoked { key, why });
        }
        if member.own.issuer.is_some_and(|issuer| self.believed.is_to_be_out(&issuer)) {
            let why = reason(&"its issuer is revoked as soon as voters have left their office");
            return Err(SiteRefusal::Revoked { key, why });
        }
        let (validity, now) = (member.validity(), self.time);
        let out_of_time = |why: String| Err(SiteRefusal::OutOfTime { why: reason(&why) });
        if now > validity.until {
            return out_of_time(format!("it ended at {}, and it is {now}", validity.until));
        }
        if validity.from > now.plus_ms(cx.limits.clock_lead_ms_max) {
            return out_of_time(format!("it begins at {}, and it is {now}", validity.from));
        }
        Ok(())
    }

    /// Checks that each issuer above a certificate may issue one more today.
    fn check_day(&self, issuer: Option<PublicKey>) -> Result<(), SiteRefusal> {
        for issuer in self.issuers_above(issuer).into_iter().flatten() {
            let Some(per_day) = self.per_day(&issuer).filter(|max| self.issued.count(&issuer) >= *max) else {
                continue;
            };
            let retry_after_ms = DAY_MS - self.time.0 % DAY_MS;
            return Err(SiteRefusal::IssuerDayFull { issuer: issuer.into(), per_day, retry_after_ms });
        }
        Ok(())
    }

    /// The issuer of a certificate, and the issuer of that one, if it is a member.
    fn issuers_above(&self, issuer: Option<PublicKey>) -> [Option<PublicKey>; 2] {
        let member = issuer.and_then(|issuer| self.members.get(&issuer));
        let above = member.and_then(|member| member.own.issuer).filter(|above| Some(*above) != issuer);
        [issuer, above]
    }

    /// Number of certificates that an issuer may issue in a day; none for no limit.
    fn per_day(&self, issuer: &PublicKey) -> Option<u32> {
        let named = self.believed.view.root().document().issuers.get(issuer);
        let of_member = || self.members.get(issuer).and_then(|member| member.own.grants.scope.as_ref());
        named.or_else(of_member).and_then(|scope| scope.per_day)
    }

    /// Makes room for a certificate, and for a member. Members whose certificates have ended make room for others.
    fn make_room_for_member(&mut self, is_new: bool, cx: &mut Cx<'_>) -> Result<(), Refusal> {
        let serials = self.issued.serials.len() as u64;
        if serials >= cx.limits.site_serials_max {
            return Err(Refusal::Full { what: ShardFullOf::SiteCertificates, count: serials });
        }
        let count = self.members.all.len() as u64;
        if !is_new || count < cx.limits.site_members_max {
            return Ok(());
        }
        let full = || Refusal::Full { what: ShardFullOf::SiteMembers, count };
        let over = self.members.longest_over(self.time).ok_or_else(full)?;
        if let Some(member) = self.members.take(&over) {
            cx.record(SiteChange::Forgotten { member: over.into(), name: member.own.grants.name.clone() });
        }
        Ok(())
    }
}

/// The invitation of a node, and the request that redeemed it.
fn sponsor_of(invited: &Invited) -> Option<Sponsor> {
    let State::Redeemed { request, .. } = &invited.state else { return None };
    Some(Sponsor { invitation: invited.sealed.clone(), request: request.as_ref().clone() })
}
