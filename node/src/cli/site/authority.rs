//! The operator who seals statements about a site, and the site that they are for.
//!
//! A statement holds for one site, and the node names that site. A node that lies names another site, where the same
//! operator may do something. So the root documents are verified, and a file beside the key remembers the first site
//! for which the key sealed: the key seals for no other.

use std::io;
use std::path::{Path, PathBuf};

use skep_client::{Directory, Read, pages, v1};
use skep_consensus::{ReadableBy, write_whole};
use skep_trust::{Chain, PublicKey, RootDocument, Sealed, SecretKey, SiteId, SiteTime, SiteView};

use super::members::{self, Member};
use crate::cli::Failure;
use crate::cli::key::KeyPath;
use crate::cli::pin;

/// An operator at a site.
pub(super) struct Authority {
    /// The operator's key.
    pub(super) key: SecretKey,
    /// What the site rests on.
    pub(super) view: SiteView,
    /// How the site stands.
    pub(super) summary: v1::SiteSummaryReply,
    /// The members of the site.
    pub(super) members: Vec<Member>,
}

impl Authority {
    /// The operator of this key at the site of the node that is asked.
    pub(super) async fn of(path: &KeyPath, directory: &Directory) -> Result<Self, Failure> {
        let (key, file) = path.sealing_key()?;
        let (view, summary) = (root_of(directory).await?, directory.summary(Read::Linearizable).await?);
        let site = view.root().site();
        if summary.site != site.as_bytes() {
            return Err(Failure::another_shard(format!(
                "the root documents of the node are of the site {site}, and its summary is not: nothing was sealed"
            )));
        }
        check_pin(&file, site)?;
        Ok(Self { key, view, summary, members: members::all(directory).await? })
    }

    pub(super) fn site(&self) -> SiteId {
        self.view.root().site()
    }

    /// The time of the site when it was asked.
    pub(super) fn now(&self) -> SiteTime {
        SiteTime(self.summary.now_ms)
    }

    pub(super) fn operator(&self) -> PublicKey {
        self.key.public()
    }

    /// What shows that the operator is one, if the root document does not name it.
    pub(super) fn chain(&self) -> Option<Chain> {
        let operator = self.operator();
        if self.view.root().document().operators.contains_key(&operator) {
            return None;
        }
        self.members.iter().find(|member| member.key == operator).map(|member| member.chain.clone())
    }
}

/// The root documents of a site, each verified by the one before it.
pub(super) async fn root_of(directory: &Directory) -> Result<SiteView, Failure> {
    let mut told = Vec::new();
    let ask = async |after: u64| directory.roots(after).await;
    pages(ask, |page: v1::ListRootsReply| told.extend(page.documents)).await?;
    let documents = told.into_iter().map(|document| Sealed::<RootDocument>::from_bytes(&document.into()));
    let documents = documents.collect::<Result<Vec<_>, _>>().map_err(Failure::failed)?;
    SiteView::new(documents).map_err(Failure::failed)
}

/// Refuses a site that differs from the one for which the key sealed before. The first one is remembered.
fn check_pin(key: &Path, told: SiteId) -> Result<(), Failure> {
    let mut file = key.as_os_str().to_owned();
    file.push(".site");
    let file = PathBuf::from(file);
    let known = match pinned(&file)? {
        Some(known) => known,
        None => match write_whole(&file, format!("{told}\n").as_bytes(), ReadableBy::Everybody) {
            Ok(()) => told,
            // Another process was first.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => pinned(&file)?.unwrap_or(told),
            Err(error) => return Err(Failure::failed(format!("{}: {error}", file.display()))),
        },
    };
    if known == told {
        return Ok(());
    }
    let file = file.display();
    Err(Failure::another_shard(format!(
        "the node names the site {told}, and this key seals for the site {known}, as {file} has it: nothing was \
         sealed. If the key is to seal for that site, move {file} away"
    )))
}

fn pinned(file: &Path) -> Result<Option<SiteId>, Failure> {
    let malformed = |_| Failure::failed(format!("{}: it holds no id of a site; move it away", file.display()));
    pin::read(file)?.map(|text| text.trim().parse::<SiteId>().map_err(malformed)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_seals_for_the_first_site_that_it_was_told_of_and_for_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("operator.key");
        let site = |byte: u8| SiteId::from_bytes([byte; 32]);
        check_pin(&key, site(1)).unwrap();
        check_pin(&key, site(1)).unwrap();
        assert!(check_pin(&key, site(2)).is_err());
        check_pin(&dir.path().join("other.key"), site(2)).unwrap();
        std::fs::write(dir.path().join("operator.key.site"), "rubbish").unwrap();
        assert!(check_pin(&key, site(1)).is_err(), "what is not understood is not written over");
    }
}
