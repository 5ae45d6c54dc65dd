//! What an issuer does for a node, one step after another, as the directory stands.
//!
//! The issuer signs what a committed redemption says, and nothing else: it chooses a serial and a time. Each step is
//! worked out from the directory alone, so that an issuer that was cut off between two of them goes on, and so
//! does another one.

use skep_protocol::codec::CodecError;
use skep_protocol::limits;
use skep_protocol::site::{InvitationState, SiteJoin};
use skep_trust::{
    Certificate, Chain, ChainError, Grants, Invitation, JoinRefusal, JoinRequest, PublicKey, Scope, ScopeError, Sealed,
    SecretKey, Serial, SiteTime, Used, Validity, redeem,
};

/// What a node asks of an issuer.
#[derive(Clone, Copy)]
pub(super) enum Asks<'a> {
    /// To redeem an invitation.
    Join(&'a Sealed<JoinRequest>),
    /// A certificate after the one that it has, as the node with this key.
    Renewal(PublicKey),
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Step {
    /// The directory is to write down who has the invitation.
    Redeem,
    /// The directory is to write down this certificate.
    Issue(Box<Sealed<Certificate>>),
    /// Nothing: this is the node's chain.
    Answer(Box<Chain>),
}

/// Why nothing is done.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    /// The node may not redeem the invitation.
    #[error(transparent)]
    Join(#[from] JoinRefusal),
    /// The issuer may not issue that.
    #[error("the issuer may not issue what the invitation says: {0}; ask for an invitation by another issuer")]
    Scope(#[from] ScopeError),
    /// The invitation has ended, or its node was revoked, or left.
    #[error("the invitation has ended, was revoked, or its member left; ask for another one")]
    Ended,
    /// The node has redeemed nothing.
    #[error("the node did not redeem the invitation that its certificate names")]
    NotRedeemed,
    /// What the directory holds cannot be read.
    #[error("what the directory of the site holds cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// The same of a chain.
    #[error("what the directory of the site holds cannot be read: {0}")]
    Chain(#[from] ChainError),
}

/// Who issues.
pub(super) struct Issuer<'a> {
    pub(super) key: &'a SecretKey,
    pub(super) scope: Scope,
    /// When its own certificate ends, if its members' chains hold that one.
    pub(super) until: Option<SiteTime>,
}

/// Whether a certificate is to be renewed: two thirds of its life are over.
pub(super) fn is_due(validity: Validity, now: SiteTime) -> bool {
    now >= validity.from.plus_ms(validity.life_ms() / 3 * 2)
}

impl Issuer<'_> {
    /// How long a certificate holds that is issued now.
    fn validity(&self, now: SiteTime) -> Validity {
        let until = now.plus_ms(limits::CERTIFICATE_LIFE_MS.min(self.scope.life_ms_max));
        Validity { from: now, until: self.until.map_or(until, |own| until.min(own)) }
    }

    /// Whether it may issue that: asked before anything is written down.
    fn check(&self, grants: &Grants, now: SiteTime) -> Result<(), ScopeError> {
        self.scope.allows(&grants.roles, &grants.name, self.validity(now).life_ms())?;
        grants.scope.as_ref().map_or(Ok(()), |inner| self.scope.covers(inner))
    }

    /// Whether the chain that a node has is the answer to it.
    fn stands_by(&self, asks: Asks<'_>, chain: &Chain, join: &SiteJoin) -> bool {
        let Some(certificate) = chain.certificate() else { return false };
        let now = SiteTime(join.now_ms);
        let is_answer = match asks {
            // The reply is sealed by the issuer of the certificate in it.
            Asks::Join(_) => certificate.issuer == Some(self.key.public()) && now <= certificate.validity.until,
            Asks::Renewal(_) => !is_due(certificate.validity, now),
        };
        is_answer && certificate.epoch >= join.epoch
    }

    /// What is to be done next for a node whose invitation stands so. `serial` is random.
    pub(super) fn next(&self, join: &SiteJoin, asks: Asks<'_>, serial: Serial) -> Result<Step, IssueError> {
        let invitation = Sealed::<Invitation>::from_bytes(&join.invitation.clone().into())?;
        let now = SiteTime(join.now_ms);
        self.check(&invitation.grants, now)?;
        match (&join.state, asks) {
            (InvitationState::Ended, _) => Err(IssueError::Ended),
            (InvitationState::Open, Asks::Renewal(_)) => Err(IssueError::NotRedeemed),
            (InvitationState::Open, Asks::Join(request)) => {
                redeem(&invitation, request, None, now)?;
                Ok(Step::Redeem)
            }
            (InvitationState::Redeemed { request, member }, _) => {
                let request = Sealed::<JoinRequest>::from_bytes(&request.clone().into())?;
                check_same(&invitation, &request, asks, now)?;
                if let Some(member) = member {
                    let chain = Chain::from_bytes(&member.chain.clone().into())?;
                    if self.stands_by(asks, &chain, join) {
                        return Ok(Step::Answer(Box::new(chain)));
                    }
                }
                let timing = (join.epoch, self.validity(now));
                let certificate = request.certificate(&invitation, serial, timing, self.key.public());
                Ok(Step::Issue(Box::new(Sealed::seal(&certificate, &[self.key])?)))
            }
        }
    }
}

/// Whether the node that asks is the one that has the invitation.
fn check_same(
    invitation: &Sealed<Invitation>,
    committed: &Sealed<JoinRequest>,
    asks: Asks<'_>,
    now: SiteTime,
) -> Result<(), IssueError> {
    match asks {
        Asks::Join(request) => {
            let used = Used { node: committed.node, request: committed.digest() };
            redeem(invitation, request, Some(used), now)?;
            Ok(())
        }
        Asks::Renewal(node) if node == committed.node => Ok(()),
        Asks::Renewal(_) => Err(IssueError::NotRedeemed),
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::Incarnation;
    use skep_protocol::site::{SiteAddresses, SiteMember};
    use skep_trust::{ChainLink, Role, SiteId};

    use super::*;

    const LIFE_MS: u64 = 900;
    const EPOCH: u64 = 4;

    fn secret(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn scope() -> Scope {
        Scope { roles: [Role::Robot].into(), name_prefix: None, life_ms_max: LIFE_MS, per_day: None }
    }

    fn invitation(role: Role) -> Sealed<Invitation> {
        let grants = Grants {
            name: "r1".parse().unwrap(),
            roles: [role].into(),
            capabilities: [].into(),
            agents: [].into(),
            scope: None,
        };
        let invitation = Invitation {
            site: SiteId::from_bytes([1; 32]),
            key: secret(5).public(),
            grants,
            until: SiteTime(500),
            operator: secret(2).public(),
            node: None,
        };
        Sealed::seal(&invitation, &[&secret(2)]).unwrap()
    }

    fn request(node: u8) -> Sealed<JoinRequest> {
        let request = JoinRequest {
            site: SiteId::from_bytes([1; 32]),
            invitation: secret(5).public(),
            node: secret(node).public(),
            name: None,
            incarnation: Incarnation([3; 16]),
            channel: Some([node; 32]),
        };
        Sealed::seal(&request, &[&secret(5), &secret(node)]).unwrap()
    }

    fn join(state: InvitationState, now_ms: u64) -> SiteJoin {
        SiteJoin { invitation: invitation(Role::Robot).to_bytes(), state, epoch: EPOCH, now_ms }
    }

    /// The node has redeemed it, and has this certificate.
    fn redeemed(certificate: Option<Sealed<Certificate>>) -> InvitationState {
        let member = certificate.map(|certificate| {
            let key = certificate.key.into();
            let until_ms = certificate.validity.until.0;
            let chain = Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap().to_bytes();
            Box::new(SiteMember { key, chain, since_ms: 0, until_ms, addresses: SiteAddresses::default() })
        });
        InvitationState::Redeemed { request: request(7).to_bytes(), member }
    }

    fn next(join: &SiteJoin, asks: Asks<'_>) -> Result<Step, IssueError> {
        let key = secret(1);
        Issuer { key: &key, scope: scope(), until: None }.next(join, asks, Serial::from_bytes([9; 16]))
    }

    fn issued(step: Result<Step, IssueError>) -> Sealed<Certificate> {
        match step {
            Ok(Step::Issue(certificate)) => *certificate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_redeems_and_then_an_issuer_issues_what_the_committed_redemption_says() {
        let asks = request(7);
        assert!(matches!(next(&join(InvitationState::Open, 100), Asks::Join(&asks)), Ok(Step::Redeem)));
        let certificate = issued(next(&join(redeemed(None), 100), Asks::Join(&asks)));
        assert_eq!(certificate.grants, invitation(Role::Robot).grants);
        assert_eq!((certificate.key, certificate.epoch), (secret(7).public(), EPOCH));
        assert_eq!(certificate.validity, Validity { from: SiteTime(100), until: SiteTime(100 + LIFE_MS) });
        let answer = next(&join(redeemed(Some(certificate.clone())), 700), Asks::Join(&asks));
        let Ok(Step::Answer(chain)) = answer else { panic!("{answer:?}") };
        assert_eq!(chain.certificate(), Some(&certificate), "the same answer, though the invitation has ended");
    }

    #[test]
    fn nobody_else_redeems_and_what_has_ended_or_is_beyond_the_scope_is_not_begun() {
        let (asks, other) = (request(7), request(8));
        let used = next(&join(redeemed(None), 100), Asks::Join(&other));
        assert!(matches!(used, Err(IssueError::Join(JoinRefusal::Used { .. }))));
        let late = next(&join(InvitationState::Open, 501), Asks::Join(&asks));
        assert!(matches!(late, Err(IssueError::Join(JoinRefusal::Late { .. }))));
        assert!(matches!(next(&join(InvitationState::Ended, 100), Asks::Join(&asks)), Err(IssueError::Ended)));
        let voter = SiteJoin { invitation: invitation(Role::Voter).to_bytes(), ..join(InvitationState::Open, 100) };
        assert!(matches!(next(&voter, Asks::Join(&asks)), Err(IssueError::Scope(ScopeError::Role { .. }))));
    }

    #[test]
    fn a_certificate_is_renewed_once_two_thirds_of_its_life_are_over_and_not_before() {
        let own = Asks::Renewal(secret(7).public());
        let first = issued(next(&join(redeemed(None), 100), own));
        let early = next(&join(redeemed(Some(first.clone())), 100 + LIFE_MS / 3 * 2 - 1), own);
        assert!(matches!(early, Ok(Step::Answer(_))), "whoever asks too often fills no log");
        let due = 100 + LIFE_MS / 3 * 2;
        let second = issued(next(&join(redeemed(Some(first)), due), own));
        assert_eq!(second.validity, Validity { from: SiteTime(due), until: SiteTime(due + LIFE_MS) });
        let again = next(&join(redeemed(Some(second)), due + 1), own);
        assert!(matches!(again, Ok(Step::Answer(_))), "an answer that was lost is given again");
        for stranger in [Asks::Renewal(secret(8).public()), Asks::Renewal(secret(1).public())] {
            assert!(matches!(next(&join(redeemed(None), due), stranger), Err(IssueError::NotRedeemed)));
        }
        assert!(matches!(next(&join(InvitationState::Open, due), own), Err(IssueError::NotRedeemed)));
    }

    #[test]
    fn no_certificate_outlives_the_one_of_an_issuer_that_its_chain_needs() {
        let (key, asks) = (secret(1), request(7));
        let issuer = Issuer { key: &key, scope: scope(), until: Some(SiteTime(300)) };
        let certificate =
            issued(issuer.next(&join(redeemed(None), 100), Asks::Join(&asks), Serial::from_bytes([9; 16])));
        assert_eq!(certificate.validity.until, SiteTime(300));
        let before = join(redeemed(Some(certificate)), 200);
        let earlier = SiteJoin { epoch: EPOCH + 1, ..before };
        let again = issued(issuer.next(&earlier, Asks::Join(&asks), Serial::from_bytes([8; 16])));
        assert_eq!(again.epoch, EPOCH + 1, "one of an epoch that is over is no answer");
    }
}
