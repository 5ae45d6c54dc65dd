//! Certificates are renewed: each node asks for its own once two thirds of its life are over.
//!
//! It keeps key, name and invitation. An issuer asks the directory as for a node that joins, so that an answer that is
//! lost is the same when it is asked for again, and a member that asks too early is given what it has.

use std::time::Duration;

use bytes::Bytes;
use skep_protocol::ids::NodeId;
use skep_protocol::site::{SiteAnswer, SiteQuery};
use skep_trust::{Chain, PublicKey, SiteClock};

use super::issue::{Asks, is_due};
use super::reach::{AskError, Directory};
use super::registrar::scope_of;
use crate::net::NotJoined;
use crate::threads::Errand;

/// Shortest and longest wait between two looks at the own certificate, in seconds. It holds for another third of its
/// life when it is to be renewed.
const LOOK_S: std::ops::Range<f64> = 30.0..90.0;

/// Why the own certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewError {
    /// No node that issues is connected.
    #[error("this node is connected with no issuer of the site")]
    NoIssuer,
    /// Each that was asked said no; the last one for this reason.
    #[error("{0}")]
    Refused(String),
}

impl Directory {
    /// The chain of a member that asks for a certificate after its own.
    pub(crate) async fn renew_for(&self, node: NodeId) -> Result<Chain, String> {
        self.renewed(node.into()).await.map_err(|error| error.to_string())
    }

    async fn renewed(&self, key: PublicKey) -> Result<Chain, NotJoined> {
        self.site()?;
        let (SiteAnswer::Member(member), _) = self.ask(SiteQuery::Member(key.into())).await? else {
            return Err(AskError::OtherAnswer.into());
        };
        let refused = |why: &str| NotJoined::Refused(why.to_owned());
        let member = member.ok_or_else(|| refused("the directory of the site knows no such member; join again"))?;
        let chain = Chain::from_bytes(&member.chain.into()).map_err(|error| refused(&error.to_string()))?;
        let invitation = chain.certificate().and_then(|certificate| certificate.invitation);
        let by_root = || refused("no invitation made that member: root keys renew what root keys sealed");
        let settled = self.settle(invitation.ok_or_else(by_root)?, key, Asks::Renewal(key)).await?;
        Ok(settled.0)
    }

    /// Renews the own certificate if that is due. Whether it was.
    pub(super) async fn renew_if_due(&self) -> Result<bool, RenewError> {
        let refused = |error: NotJoined| RenewError::Refused(error.to_string());
        let site = self.site().map_err(refused)?;
        let (SiteClock::Known(now) | SiteClock::AtLeast(now)) = site.clock();
        let own = site.hello().chain;
        let validity = own.certificate().map(|certificate| certificate.validity);
        if validity.is_none_or(|validity| !is_due(validity, now)) {
            return Ok(false);
        }
        let chain = if scope_of(site).is_some() {
            self.renewed(site.key()).await.map_err(refused)?
        } else {
            self.ask_issuers().await?
        };
        if chain == own {
            return Err(RenewError::Refused("the directory of the site does not find that it is due".to_owned()));
        }
        self.show(chain).await.map_err(RenewError::Refused)?;
        Ok(true)
    }

    async fn ask_issuers(&self) -> Result<Chain, RenewError> {
        let mut failed = RenewError::NoIssuer;
        for node in self.shards.parts.peers.issuers() {
            match self.shards.parts.renew(node).await {
                Ok(chain) => return Ok(chain),
                Err(why) => failed = RenewError::Refused(format!("{node}: {why}")),
            }
        }
        Err(failed)
    }

    /// Shows another chain from here on, if this node is let in by it. It is written down first.
    async fn show(&self, chain: Chain) -> Result<(), String> {
        let site = self.site().map_err(|error| error.to_string())?.clone();
        let show = move || {
            let shown = Bytes::from(chain.to_bytes());
            site.admit(&shown, site.key()).map_err(|error| error.to_string())?;
            site.renew(chain).map_err(|error| error.to_string())
        };
        let shown = self.shards.parts.threads.offload(Errand::Files, show).await;
        shown.map_err(|error| error.to_string())?
    }

    /// Looks after the own certificate, for as long as the node runs.
    pub(crate) async fn keep_renewed(self) {
        loop {
            match self.renew_if_due().await {
                Ok(true) => tracing::info!("the certificate of this node was renewed"),
                Ok(false) => {}
                Err(why) => tracing::warn!(%why, "the certificate of this node is to be renewed, and was not"),
            }
            tokio::time::sleep(Duration::from_secs_f64(rand::random_range(LOOK_S))).await;
        }
    }
}
