//! Members are made: a node redeems an invitation, and an issuer issues what that says.

use skep_admission::SiteHandle;
use skep_protocol::codec::CodecError;
use skep_protocol::limits;
use skep_protocol::site::{InvitationState, SiteAnswer, SiteJoin, SiteOp, SiteQuery};
use skep_protocol::time::LogInstant;
use skep_trust::{
    Chain, JoinReply, JoinRequest, MemberAddress, PublicKey, RootDocument, Scope, Sealed, SecretKey, Serial,
    SignedRevocation, SiteNews, SiteTime, SiteView, TrustNews,
};

use super::issue::{Asks, IssueError, Issuer, Step};
use super::reach::{AskError, Directory};
use crate::net::{Joining, Knowing, NotJoined, Registrar};

/// Steps of one node's way at most: it redeems, an issuer issues, and another issuer may have done either before.
const STEPS_MAX: usize = 6;
/// Voters of which a new member is told where they are, the one that it asked not counted.
const VOTERS_TOLD_MAX: usize = limits::VOTERS_MAX - 1;

/// For people, and final.
fn refused(why: &dyn std::fmt::Display) -> NotJoined {
    NotJoined::Refused(why.to_string())
}

impl From<IssueError> for NotJoined {
    fn from(error: IssueError) -> Self {
        refused(&error)
    }
}

impl From<AskError> for NotJoined {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(refusal) => refused(&refusal),
            AskError::NoLeader | AskError::OtherAnswer => Self::Later(error.to_string()),
        }
    }
}

impl Directory {
    pub(super) fn site(&self) -> Result<&SiteHandle, NotJoined> {
        self.shards.parts.peers.site().ok_or_else(|| refused(&"this node is of no site"))
    }

    /// How an invitation stands; none if the directory does not know it.
    async fn invitation(&self, invitation: PublicKey) -> Result<Option<(SiteJoin, LogInstant)>, AskError> {
        match self.ask(SiteQuery::Join { invitation: invitation.into() }).await? {
            (SiteAnswer::Join(join), clock) => Ok(join.map(|join| (*join, clock))),
            _ => Err(AskError::OtherAnswer),
        }
    }

    /// Makes a node of this invitation what the invitation says, or looks that it is: its chain, and site time.
    pub(super) async fn settle(
        &self,
        invitation: PublicKey,
        node: PublicKey,
        asks: Asks<'_>,
    ) -> Result<(Chain, SiteTime), NotJoined> {
        let no_issuer = || refused(&"this node issues no certificates; ask one that does");
        let (scope, until) = scope_of(self.site()?).ok_or_else(no_issuer)?;
        let issuer = Issuer { key: &self.shards.parts.seals, scope, until };
        for _ in 0..STEPS_MAX {
            let unknown = || refused(&"the directory of the site does not know the invitation");
            let (join, clock) = self.invitation(invitation).await?.ok_or_else(unknown)?;
            let step = issuer.next(&join, asks, Serial::from_bytes(self.random()))?;
            let op = match (step, asks) {
                (Step::Answer(chain), _) => return Ok((*chain, SiteTime(join.now_ms))),
                (Step::Issue(certificate), _) => SiteOp::Issue { certificate: certificate.to_bytes() },
                (Step::Redeem, Asks::Join(request)) => {
                    SiteOp::Redeem { invitation: invitation.into(), node: node.into(), request: request.to_bytes() }
                }
                (Step::Redeem, Asks::Renewal(_)) => break,
            };
            match self.change(op, clock).await {
                // Whether it was done shows when it is looked at again.
                Ok(()) | Err(AskError::NoLeader) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotJoined::Later("the directory of the site does not hold what was written to it".to_owned()))
    }

    /// Takes note of root documents that this node lacks, if a chain does not hold under those that it has.
    async fn catch_up(&self, site: &SiteHandle, chain: &Chain) -> Result<SiteView, NotJoined> {
        let view = site.view();
        if chain.verify(view.root()).is_ok() {
            return Ok(view);
        }
        let after = view.root().document().version;
        let (SiteAnswer::Roots { documents, .. }, _) = self.ask(SiteQuery::Roots { after }).await? else {
            return Err(AskError::OtherAnswer.into());
        };
        let documents = documents.into_iter().map(|document| Sealed::from_bytes(&document.into()));
        let documents: Result<Vec<Sealed<RootDocument>>, CodecError> = documents.collect();
        let news = SiteNews { documents: documents.map_err(|e| refused(&e))?, ..SiteNews::default() };
        self.shards.parts.peers.learn(news).await.map_err(|e| refused(&e))?;
        let view = site.view();
        chain.verify(view.root()).map_err(|e| refused(&e))?;
        Ok(view)
    }

    async fn reply(&self, request: Sealed<JoinRequest>) -> Result<Vec<u8>, NotJoined> {
        let (chain, now) = self.settle(request.invitation, request.node, Asks::Join(&request)).await?;
        let view = self.catch_up(self.site()?, &chain).await?;
        let reply = JoinReply {
            request: request.digest(),
            roots: view.documents_after(0).cloned().collect(),
            chain,
            revocations: revocations_of(&view),
            now,
            voters: self.voters(),
        };
        let seals: &SecretKey = &self.shards.parts.seals;
        Ok(Sealed::seal(&reply, &[seals]).map_err(|e| refused(&e))?.to_bytes())
    }

    /// Where this node and the voters are said to be. A machine whose request came by file has dialled nobody.
    fn voters(&self) -> Vec<MemberAddress> {
        let parts = &self.shards.parts;
        let known = parts.peers.addresses_of_voters().known.into_iter().filter(|(node, _)| *node != parts.node);
        let own = Some(parts.config.listen).filter(|at| !at.ip().is_unspecified() && at.port() != 0);
        let told = own.map(|at| (parts.node, at)).into_iter().chain(known.take(VOTERS_TOLD_MAX));
        told.map(|(node, at)| MemberAddress { node: node.into(), control: Some(at), mesh: None }).collect()
    }
}

/// What this node may issue, and when its own certificate ends if the chains of its members hold that one; none if it
/// is no issuer.
pub(super) fn scope_of(site: &SiteHandle) -> Option<(Scope, Option<SiteTime>)> {
    if let Some(scope) = site.view().root().document().issuers.get(&site.key()) {
        return Some((scope.clone(), None));
    }
    let own = site.hello().chain;
    let certificate = own.certificate()?;
    Some((certificate.grants.scope.clone()?, Some(certificate.validity.until)))
}

/// Who is out, or as many of those as one page holds.
fn revocations_of(view: &SiteView) -> Vec<SignedRevocation> {
    // As for a node that knows all root documents and no revocation.
    let theirs = TrustNews { root_version: u64::MAX, revocations: 0, digest: [0; 32], ..view.news() };
    view.missing_of(&theirs).map(|page| page.revocations).unwrap_or_default()
}

impl Registrar for Directory {
    fn knows(&self, invitation: PublicKey) -> Knowing {
        let directory = self.clone();
        Box::pin(async move {
            let known = directory.invitation(invitation).await.map_err(|e| e.to_string())?;
            Ok(known.is_some_and(|(join, _)| join.state != InvitationState::Ended))
        })
    }

    fn join(&self, request: Sealed<JoinRequest>) -> Joining {
        let directory = self.clone();
        Box::pin(async move { directory.reply(request).await })
    }
}
