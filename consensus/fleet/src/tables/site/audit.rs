//! The audit of refusals: one entry for each kind and peer in a minute.

use imbl::OrdMap;
use skep_protocol::code::Code;
use skep_protocol::refusal::Refusal;
use skep_protocol::site::{SiteChange, SiteKey, SiteOp};
use skep_protocol::time::LogInstant;
use skep_trust::{Certificate, Invitation, PublicKey, Sealed, SignedRevocation, Stated};

use super::Site;
use crate::state::changes::Cx;

const MINUTE_MS: u64 = 60_000;

/// The kind of a refusal, and the key of the peer that was refused.
pub(super) type Kind = (Code, Option<PublicKey>);

/// Refusals of the last minute, and when each was audited.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    pub(super) told: OrdMap<Kind, LogInstant>,
}

impl Refusals {
    /// The peer under which to audit a refusal; nothing if there was an entry within the minute.
    fn note(&mut self, code: Code, peer: Option<PublicKey>, cx: &Cx<'_>) -> Option<Option<PublicKey>> {
        let is_fresh = |at: &LogInstant| cx.now.since_ms(*at) < MINUTE_MS;
        let max = usize::try_from(cx.limits.site_refusals_kept).unwrap_or(usize::MAX);
        let mut kind = (code, peer);
        if self.told.get(&kind).is_some_and(is_fresh) {
            return None;
        }
        if self.told.len() >= max {
            let fresh = self.told.iter().filter(|(_, at)| is_fresh(at));
            self.told = fresh.map(|(kind, at)| (*kind, *at)).collect();
        }
        if self.told.len() >= max {
            kind = (code, None);
            if self.told.get(&kind).is_some_and(is_fresh) {
                return None;
            }
        }
        self.told.insert(kind, cx.now);
        Some(kind.1)
    }
}

impl Site {
    /// Audits that a peer was refused something.
    pub(crate) fn note_refusal(&mut self, op: &SiteOp, refusal: &Refusal, cx: &mut Cx<'_>) {
        if let Some(peer) = self.refusals.note(refusal.code(), peer_of(op), cx) {
            let why = Box::new(refusal.clone());
            cx.record(SiteChange::Refused { peer: peer.map(SiteKey::from), why });
        }
    }
}

/// Key of the peer that asks, as it says itself.
fn peer_of(op: &SiteOp) -> Option<PublicKey> {
    match op {
        SiteOp::Invite { invitation } => sealed::<Invitation>(invitation).map(|sealed| sealed.operator),
        SiteOp::Redeem { node, .. } => Some(PublicKey::from(*node)),
        SiteOp::Issue { certificate } => {
            sealed::<Certificate>(certificate).map(|sealed| sealed.issuer.unwrap_or(sealed.key))
        }
        SiteOp::Revoke { revocation } => {
            let signed = SignedRevocation::from_bytes(&revocation.clone().into()).ok();
            signed.map(|signed| signed.revocation.operator)
        }
        SiteOp::Root { .. } => None,
        SiteOp::Leave { member } | SiteOp::Locate { member, .. } => Some(PublicKey::from(*member)),
    }
}

fn sealed<T: Stated>(bytes: &[u8]) -> Option<Sealed<T>> {
    Sealed::from_bytes(&bytes.to_vec().into()).ok()
}
