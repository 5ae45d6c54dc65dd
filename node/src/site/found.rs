//! How a site begins: its first root document, and its first member.
//!
//! The first node goes the way of all others: an operator invites it, it redeems that, an issuer issues. All three are
//! on one machine, so that no word of it travels. Nothing here is random: the caller gives what is.

use skep_protocol::codec::CodecError;
use skep_protocol::ids::Incarnation;
use skep_protocol::limits;
use skep_protocol::text::{NodeName, OperatorName, SiteName};
use skep_trust::{
    Chain, ChainError, ChainLink, Grants, Invitation, InvitationSecret, JoinRefusal, JoinRequest, Refusal, Role,
    RootDocument, RootError, Scope, Sealed, SecretKey, Serial, SiteClock, SiteTime, SiteView, Sponsor, Validity, judge,
    redeem,
};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// How long the certificate of a node holds that votes and issues, in milliseconds of site time.
const VOTER_LIFE_MS: u64 = 90 * DAY_MS;
/// The epoch in which a site begins.
const FIRST_EPOCH: u64 = 1;

/// Of what a site is made.
pub(crate) struct Founding<'a> {
    /// Its name.
    pub(crate) site: SiteName,
    /// Random.
    pub(crate) nonce: [u8; 16],
    /// Its root keys.
    pub(crate) root_keys: &'a [SecretKey],
    /// How many of them must seal.
    pub(crate) threshold: u32,
    /// Its first operator.
    pub(crate) operator: (&'a SecretKey, OperatorName),
    /// Its first node.
    pub(crate) node: FirstNode<'a>,
}

/// The first node of a site.
pub(crate) struct FirstNode<'a> {
    /// Its key, which is the issuer's as well.
    pub(crate) key: &'a SecretKey,
    /// Its name.
    pub(crate) name: NodeName,
    /// That of its data directory.
    pub(crate) incarnation: Incarnation,
    /// Random, for its certificate.
    pub(crate) serial: [u8; 16],
    /// Random, for its invitation.
    pub(crate) secret: [u8; 16],
}

/// A site that was made.
#[derive(Debug)]
pub(crate) struct Founded {
    /// Its first root document.
    pub(crate) view: SiteView,
    /// The chain of its first node.
    pub(crate) chain: Chain,
}

/// Why a site could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundError {
    /// A statement is over a limit.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The root document does not hold.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The node could not redeem its invitation.
    #[error(transparent)]
    Join(#[from] JoinRefusal),
    /// The node's chain does not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The node is not let in.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What the first node may issue, as the root document says and its own certificate repeats.
fn scope() -> Scope {
    Scope { roles: Role::ALL.into(), name_prefix: None, life_ms_max: VOTER_LIFE_MS, per_day: None }
}

/// Makes a site, and looks whether it holds.
///
/// # Errors
/// [`FoundError`] if it does not.
pub(crate) fn found(founding: &Founding<'_>) -> Result<Founded, FoundError> {
    let (operator, operator_name) = &founding.operator;
    let document = RootDocument {
        after: None,
        version: 1,
        name: founding.site.clone(),
        nonce: founding.nonce,
        root_keys: founding.root_keys.iter().map(SecretKey::public).collect(),
        threshold: founding.threshold,
        issuers: [(founding.node.key.public(), scope())].into(),
        operators: [(operator.public(), operator_name.clone())].into(),
        epoch: FIRST_EPOCH,
    };
    let sealing: Vec<&SecretKey> = founding.root_keys.iter().collect();
    let view = SiteView::new(vec![Sealed::seal(&document, &sealing)?])?;
    let chain = founding.node.join(&view, operator)?;
    let member = chain.verify(view.root())?;
    judge(&view, &member, SiteClock::Known(SiteTime::default()))?;
    Ok(Founded { view, chain })
}

impl FirstNode<'_> {
    /// Its chain: the operator invites it and nobody else, and it issues to itself what it was invited to.
    fn join(&self, view: &SiteView, operator: &SecretKey) -> Result<Chain, FoundError> {
        let (site, node) = (view.root().site(), self.key.public());
        let invited = InvitationSecret::from_bytes(self.secret).key(&site.half());
        let now = SiteTime::default();
        let grants = Grants {
            name: self.name.clone(),
            roles: [Role::Voter, Role::Issuer].into(),
            capabilities: [].into(),
            agents: [].into(),
            scope: Some(scope()),
        };
        let invitation = Invitation {
            site,
            key: invited.public(),
            grants,
            // For this node alone, which redeems it in the entry in which the directory hears of it.
            until: now.plus_ms(limits::INVITATION_LIFE_MS_MAX),
            operator: operator.public(),
            node: Some(node),
        };
        let request = JoinRequest {
            site,
            invitation: invited.public(),
            node,
            name: Some(self.name.clone()),
            incarnation: self.incarnation,
            channel: None,
        };
        let invitation = Sealed::seal(&invitation, &[operator])?;
        let request = Sealed::seal(&request, &[&invited, self.key])?;
        redeem(&invitation, &request, None, now)?;
        let validity = Validity { from: now, until: now.plus_ms(VOTER_LIFE_MS) };
        let epoch = view.epoch_min();
        let serial = Serial::from_bytes(self.serial);
        let certificate = request.certificate(&invitation, serial, (epoch, validity), node);
        let certificate = Sealed::seal(&certificate, &[self.key])?;
        Ok(Chain::new(vec![ChainLink { certificate, sponsor: Some(Sponsor { invitation, request }) }])?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use skep_trust::PublicKey;

    /// The key of the first node of what is made here.
    pub(in crate::site) const NODE: u8 = 10;
    /// Its first operator.
    pub(in crate::site) const OPERATOR: u8 = 20;
    /// Its root keys.
    pub(in crate::site) const ROOTS: [u8; 3] = [1, 2, 3];

    pub(in crate::site) fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    pub(in crate::site) fn key(n: u8) -> PublicKey {
        secret(n).public()
    }

    /// A site whose keys are made of one byte each.
    pub(in crate::site) fn hall(threshold: u32) -> Result<Founded, FoundError> {
        let (roots, operator, node) = (ROOTS.map(secret), secret(OPERATOR), secret(NODE));
        found(&Founding {
            site: "hall".parse().unwrap(),
            nonce: [9; 16],
            root_keys: &roots,
            threshold,
            operator: (&operator, "first".parse().unwrap()),
            node: FirstNode {
                key: &node,
                name: "edge-1".parse().unwrap(),
                incarnation: Incarnation([4; 16]),
                serial: [5; 16],
                secret: [6; 16],
            },
        })
    }

    #[test]
    fn the_first_node_votes_and_issues_and_its_chain_holds_as_anybody_elses_must() {
        let founded = hall(2).unwrap();
        let member = founded.chain.verify(founded.view.root()).unwrap();
        assert_eq!(member.key, key(NODE));
        assert!(member.is(Role::Voter) && member.is(Role::Issuer) && !member.is(Role::Operator));
        assert!(founded.view.root().document().operators.contains_key(&key(OPERATOR)));
        assert_eq!(founded.view.root().document().threshold, 2);
        assert!(!founded.view.root().rests_on_one_key());
    }

    #[test]
    fn a_site_whose_root_keys_cannot_reach_the_threshold_is_not_made() {
        assert!(matches!(hall(4), Err(FoundError::Codec(_))));
        assert!(matches!(hall(0), Err(FoundError::Codec(_))));
    }
}
