//! How members get out: by revocations, and by root documents.
//!
//! A voter leaves its office before it is revoked: otherwise a shard could lose its quorum to its own directory. The
//! revocation waits for that. A root document does not wait: root keys have the last word.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{InvitationsEnd, SiteChange, SiteKey, SiteReceipt, SiteRefusal, SiteStatement};
use skep_trust::{PublicKey, Revocation, RevocationError, Revoked, RootDocument, Sealed, SignedRevocation, SiteView};

use super::Site;
use super::believed::Pending;
use super::members::Membership;
use super::refused::{of_revocation, of_root, read};
use crate::state::changes::Cx;

impl Site {
    /// Takes a revocation of an operator.
    pub(super) fn revoke(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        let known = (self.believed.view.epoch_min(), self.epoch_max(cx));
        let refused = |error: RevocationError| of_revocation(error, known);
        let signed = SignedRevocation::from_bytes(&bytes.to_vec().into()).map_err(refused)?;
        if let Some(pending) = self.believed.pending(&signed) {
            return Ok(SiteReceipt::Revoked { members: 0, waits_for: as_count(pending.waits.len()) });
        }
        let mut view = SiteView::clone(&self.believed.view);
        let is_news = view.learn_revocation(signed.clone()).map_err(refused)?;
        let stated = signed.revocation.statement();
        if !is_news {
            // The directory knows it, or it is about certificates that do not hold anyway: its operator may mean
            // others.
            let is_behind = stated.epoch < known.0 && !matches!(stated.what, Revoked::BelowEpoch(_));
            let (what, given, (min, max)) = (SiteStatement::Revocation, stated.epoch, known);
            return if is_behind {
                Err(SiteRefusal::WrongEpoch { what, given, min, max }.into())
            } else {
                Ok(SiteReceipt::Revoked { members: 0, waits_for: 0 })
            };
        }
        let out = self.members.out_by(&view);
        self.check_covers(stated, &out, cx)?;
        let waits = in_office(&out, &BTreeSet::new());
        if waits.is_empty() || is_on(Mutant::VoterRevokedInOffice) {
            let members = self.believe(view, signed, &out, cx);
            return Ok(SiteReceipt::Revoked { members, waits_for: 0 });
        }
        let count = self.believed.pending.len() as u64;
        if count >= cx.limits.pending_revocations_max {
            return Err(Refusal::Full { what: ShardFullOf::PendingRevocations, count });
        }
        let (operator, waits_for) = (signed.revocation.operator.into(), as_count(waits.len()));
        self.believed.pending.push(Arc::new(Pending { signed: Arc::new(signed), waits, left: BTreeSet::new() }));
        cx.record(SiteChange::RevocationWaits { operator, voters: waits_for, revocation: bytes.to_vec() });
        Ok(SiteReceipt::Revoked { members: 0, waits_for })
    }

    /// Notes that a voter votes nowhere any more, as far as the orchestrator saw: a revocation that waited for it only
    /// holds.
    pub(crate) fn leave_office(&mut self, voter: SiteKey, cx: &mut Cx<'_>) {
        let voter = PublicKey::from(voter);
        for pending in std::mem::take(&mut self.believed.pending) {
            if !pending.waits.contains(&voter) {
                self.believed.pending.push(pending);
                continue;
            }
            let mut pending = Pending::clone(&pending);
            pending.waits.remove(&voter);
            pending.left.insert(voter);
            if !pending.waits.is_empty() {
                self.believed.pending.push(Arc::new(pending));
                continue;
            }
            self.end_pending(pending, cx);
        }
    }

    /// Ends the wait of a revocation without voters to wait for: it holds, unless other voters became members that it
    /// puts out as well, or its operator is not one any more.
    fn end_pending(&mut self, mut pending: Pending, cx: &mut Cx<'_>) {
        let mut view = SiteView::clone(&self.believed.view);
        let signed = SignedRevocation::clone(&pending.signed);
        match view.learn_revocation(signed.clone()) {
            Ok(true) => {
                let out = self.members.out_by(&view);
                pending.waits = in_office(&out, &pending.left);
                if pending.waits.is_empty() {
                    self.believe(view, signed, &out, cx);
                } else {
                    self.believed.pending.push(Arc::new(pending));
                }
            }
            Ok(false) => {}
            Err(error) => {
                let why = of_revocation(error, (self.believed.view.epoch_min(), self.epoch_max(cx)));
                let operator = signed.revocation.operator.into();
                cx.record(SiteChange::RevocationDropped { operator, why: Box::new(why) });
            }
        }
    }

    /// Takes another root document. The same one again changes nothing.
    pub(super) fn follow_root(&mut self, bytes: &[u8], cx: &mut Cx<'_>) -> Result<SiteReceipt, Refusal> {
        let document: Sealed<RootDocument> = read(SiteStatement::RootDocument, bytes)?;
        let version = document.version;
        let mut view = SiteView::clone(&self.believed.view);
        if view.learn_root(document).map_err(|error| of_root(&error))? {
            cx.record(SiteChange::Rooted { version, document: bytes.to_vec() });
            let out = self.members.out_by(&view);
            self.believed.now(view);
            self.put_out(&out, cx);
        }
        Ok(SiteReceipt::Rooted { version })
    }

    /// Tells an operator who names a key or a certificate if that is of a later epoch than the revocation is about.
    fn check_covers(&self, stated: &Revocation, out: &[Arc<Membership>], cx: &Cx<'_>) -> Result<(), SiteRefusal> {
        let meant = match stated.what {
            Revoked::Key(key) => self.members.get(&key),
            Revoked::Serial(serial) => self.members.all.values().find(|of| of.own.serial == serial).map(Arc::as_ref),
            Revoked::Issued { .. } | Revoked::BelowEpoch(_) => None,
        };
        let missed = meant.filter(|meant| !out.iter().any(|member| member.own.key == meant.own.key));
        match missed {
            Some(member) => {
                let what = SiteStatement::Revocation;
                let (min, max) = (member.own.epoch, self.epoch_max(cx));
                Err(SiteRefusal::WrongEpoch { what, given: stated.epoch, min, max })
            }
            None => Ok(()),
        }
    }

    /// Makes a revocation hold from now on. Returns how many members are out by it.
    fn believe(&mut self, view: SiteView, signed: SignedRevocation, out: &[Arc<Membership>], cx: &mut Cx<'_>) -> u32 {
        let what = signed.revocation.what;
        let (operator, revocation, members) =
            (signed.revocation.operator.into(), signed.to_bytes(), as_count(out.len()));
        self.believed.with(view, signed);
        cx.record(SiteChange::Revoked { operator, members, revocation });
        match what {
            Revoked::Key(key) => {
                self.invitations.void_all_of(key);
                let why = InvitationsEnd::Revoked;
                let count = self.invitations.end_open(why, |of| of.operator == key || of.key == key);
                Self::tell_ended(count, why, cx);
                self.free_names_of(key);
            }
            Revoked::Serial(_) => out.iter().for_each(|member| self.invitations.void_all_of(member.own.key)),
            // Another issuer may issue anew to members that joined before.
            Revoked::Issued { .. } | Revoked::BelowEpoch(_) => {}
        }
        self.put_out(out, cx);
        members
    }

    /// Frees the name of a node that has redeemed an invitation and got no certificate.
    fn free_names_of(&mut self, key: PublicKey) {
        let names = self.members.names.iter().filter(|(_, (holder, _))| *holder == key);
        for name in names.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.members.free_name(&name, key);
        }
    }

    fn put_out(&mut self, out: &[Arc<Membership>], cx: &mut Cx<'_>) {
        for member in out {
            self.members.take(&member.own.key);
            cx.record(SiteChange::Out { member: member.own.key.into(), name: member.own.grants.name.clone() });
        }
    }
}

/// Keys of those of these members that may be in office, but for some that are not.
fn in_office(out: &[Arc<Membership>], left: &BTreeSet<PublicKey>) -> BTreeSet<PublicKey> {
    let voters = out.iter().filter(|member| member.may_vote()).map(|member| member.own.key);
    voters.filter(|key| !left.contains(key)).collect()
}

fn as_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
