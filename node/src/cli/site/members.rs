//! Members of a site, as its directory has them.

use std::net::SocketAddr;

use bytes::Bytes;
use skep_client::{Directory, Read, pages, v1};
use skep_trust::{Chain, Grants, PublicKey, Role};

use crate::cli::Failure;
use crate::cli::as_of::PAGE;

/// A member of the site.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: PublicKey,
    /// What it is.
    pub(super) grants: Grants,
    /// The epoch of its certificate.
    pub(super) epoch: u64,
    /// What it shows.
    pub(super) chain: Chain,
    /// Where its control plane is said to be.
    pub(super) control: Option<SocketAddr>,
    /// Where its mesh is said to be.
    pub(super) mesh: Option<SocketAddr>,
}

impl Member {
    /// From what the directory tells.
    pub(super) fn of(told: &v1::SiteMember) -> Result<Self, Failure> {
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::failed(format!("the directory tells of the member {}: {why}; upgrade this program", told.key))
        };
        let key: PublicKey = told.key.parse().map_err(|error| wrong(&error))?;
        let chain = Chain::from_bytes(&Bytes::copy_from_slice(&told.chain)).map_err(|error| wrong(&error))?;
        let certificate = chain.certificate().ok_or_else(|| wrong(&"it has no certificate"))?.statement();
        Ok(Self {
            key,
            grants: certificate.grants.clone(),
            epoch: certificate.epoch,
            control: told.control.parse().ok(),
            mesh: told.mesh.parse().ok(),
            chain,
        })
    }

    pub(super) fn is(&self, role: Role) -> bool {
        self.grants.roles.contains(&role)
    }
}

/// All members, in the order of their keys.
pub(super) async fn all(directory: &Directory) -> Result<Vec<Member>, Failure> {
    let mut told = Vec::new();
    let ask = async |after: String| directory.members(&after, PAGE, Read::Linearizable).await;
    pages(ask, |page: v1::ListMembersReply| told.extend(page.members)).await?;
    told.iter().map(Member::of).collect()
}
