//! The site in a snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_protocol::code::Code;
use skep_protocol::site::SiteAddresses;
use skep_protocol::text::NodeName;
use skep_protocol::time::LogInstant;
use skep_trust::{Chain, PublicKey, RootDocument, Sealed, Serial, SignedRevocation, SiteTime, SiteView};

use super::Site;
use super::believed::{Believed, Pending};
use super::invitations::Invited;
use super::members::Membership;

/// The parts of a site that exist once.
#[derive(Serialize, Deserialize)]
pub(crate) struct SiteHead {
    time: SiteTime,
    documents: Vec<Sealed<RootDocument>>,
    epoch_min: u64,
    revocations: u64,
    pending: Vec<StoredPending>,
    day: u64,
    issued: Vec<(PublicKey, u32)>,
    refused: Vec<(String, Option<PublicKey>, LogInstant)>,
}

#[derive(Serialize, Deserialize)]
struct StoredPending {
    signed: Vec<u8>,
    waits: BTreeSet<PublicKey>,
    left: BTreeSet<PublicKey>,
}

/// A member in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredMember {
    chain: Vec<u8>,
    since: SiteTime,
    addresses: SiteAddresses,
}

impl Site {
    /// All but the site's revocations, members, names, invitations and serials.
    pub(crate) fn head(&self) -> SiteHead {
        let pending = self.believed.pending.iter().map(|pending| StoredPending {
            signed: pending.signed.to_bytes(),
            waits: pending.waits.clone(),
            left: pending.left.clone(),
        });
        let refused = self.refusals.told.iter().map(|((code, peer), at)| (code.as_str().to_owned(), *peer, *at));
        SiteHead {
            time: self.time,
            documents: self.believed.view.documents_after(0).cloned().collect(),
            epoch_min: self.believed.view.epoch_min(),
            revocations: self.believed.count,
            pending: pending.collect(),
            day: self.issued.day,
            issued: self.issued.counts.iter().map(|(issuer, count)| (*issuer, *count)).collect(),
            refused: refused.collect(),
        }
    }

    /// Revocations, each with its number.
    pub(crate) fn revocations(&self) -> impl ExactSizeIterator<Item = (u64, Vec<u8>)> + '_ {
        self.believed.order.iter().map(|(number, signed)| (*number, signed.to_bytes()))
    }

    /// All members.
    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = StoredMember> + '_ {
        self.members.all.values().map(|member| StoredMember {
            chain: member.chain.to_bytes(),
            since: member.since,
            addresses: member.addresses,
        })
    }

    /// The holder of each name, and until when.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = (&NodeName, &(PublicKey, SiteTime))> {
        self.members.names.iter()
    }

    /// All invitations.
    pub(crate) fn invitations(&self) -> impl ExactSizeIterator<Item = &Invited> {
        self.invitations.all.values()
    }

    /// Serials of certificates, and when each certificate ends.
    pub(crate) fn serials(&self) -> impl ExactSizeIterator<Item = (&Serial, &SiteTime)> {
        self.issued.serials.iter()
    }

    /// A site without members, names, invitations and serials. None if something in it is not what it should be.
    pub(crate) fn from_head(head: SiteHead, revocations: Vec<(u64, Vec<u8>)>) -> Option<Self> {
        let numbered = revocations.into_iter().map(|(number, bytes)| Some((number, signed(bytes)?)));
        let numbered: Vec<(u64, Arc<SignedRevocation>)> = numbered.collect::<Option<_>>()?;
        let all = numbered.iter().map(|(_, signed)| SignedRevocation::clone(signed));
        let view = SiteView::restored(head.documents, all, head.epoch_min).ok()?;
        let pending = head.pending.into_iter().map(|of| {
            let signed = signed(of.signed)?;
            Some(Arc::new(Pending { signed, waits: of.waits, left: of.left }))
        });
        let refused = head.refused.into_iter().map(|(code, peer, at)| Some(((Code::of(&code)?, peer), at)));
        let mut site = Self::of_view(view);
        site.time = head.time;
        site.believed = Believed {
            count: head.revocations,
            order: numbered.into_iter().collect(),
            pending: pending.collect::<Option<_>>()?,
            ..site.believed
        };
        site.issued.day = head.day;
        site.issued.counts = head.issued.into_iter().collect();
        site.refusals.told = refused.collect::<Option<Vec<_>>>()?.into_iter().collect();
        Some(site)
    }

    /// Takes over a member. Returns false if there is none in the record.
    pub(crate) fn restore_member(&mut self, stored: StoredMember) -> bool {
        let chain = Chain::from_bytes(&stored.chain.into()).ok();
        let member = chain.and_then(|chain| Membership::new(chain, stored.since, stored.addresses));
        member.is_some_and(|member| {
            self.members.all.insert(member.own.key, Arc::new(member));
            true
        })
    }

    pub(crate) fn restore_name(&mut self, name: NodeName, holder: (PublicKey, SiteTime)) {
        self.members.names.insert(name, holder);
    }

    pub(crate) fn restore_invitation(&mut self, invited: Invited) {
        self.invitations.all.insert(invited.sealed.key, invited);
    }

    pub(crate) fn restore_serial(&mut self, serial: Serial, until: SiteTime) {
        self.issued.put_serial(serial, until);
    }
}

fn signed(bytes: Vec<u8>) -> Option<Arc<SignedRevocation>> {
    SignedRevocation::from_bytes(&bytes.into()).ok().map(Arc::new)
}
