//! What a node knows of its site: the root documents, and who is out. It only learns: nothing here falls back.

use skep_protocol::limits;

use crate::hello::TrustNews;
use crate::revocation::{RevocationError, SignedRevocation};
use crate::revocations::Revocations;
use crate::root::{RootDocument, RootError, SiteRoot};
use crate::sealed::Sealed;

/// What a node knows of its site. The node writes it down whole, and never takes it back to what it was.
#[derive(Clone, Debug)]
pub struct SiteView {
    root: SiteRoot,
    /// All versions, the first one first.
    documents: Vec<Sealed<RootDocument>>,
    revocations: Revocations,
}

impl SiteView {
    /// The view of all root documents, the first one first. The caller checks that this is the site that is meant.
    ///
    /// # Errors
    /// [`RootError`] of the first one that does not hold.
    pub fn new(documents: Vec<Sealed<RootDocument>>) -> Result<Self, RootError> {
        let max = limits::ROOT_VERSIONS_MAX;
        if documents.len() > max {
            return Err(RootError::TooMany { max });
        }
        let root = SiteRoot::follow(documents.iter().cloned())?;
        let mut view = Self { root, documents, revocations: Revocations::default() };
        view.revocations.forget_below(view.root.document().epoch);
        Ok(view)
    }

    /// The view that the node had before, and wrote down: all root documents, the revocations, and the earliest epoch.
    /// It follows the root documents again. When the revocations came, it verified that operators of that time stated
    /// them.
    ///
    /// # Errors
    /// [`RootError`] of the first document that does not hold.
    pub fn restored(
        documents: Vec<Sealed<RootDocument>>,
        revocations: impl IntoIterator<Item = SignedRevocation>,
        epoch_min: u64,
    ) -> Result<Self, RootError> {
        let mut view = Self::new(documents)?;
        for signed in revocations {
            view.revocations.restore(signed);
        }
        view.revocations.forget_below(epoch_min);
        Ok(view)
    }

    /// Learns another root document. Returns whether it was news.
    ///
    /// # Errors
    /// [`RootError`] if it does not follow the one that is known.
    pub fn learn_root(&mut self, document: Sealed<RootDocument>) -> Result<bool, RootError> {
        let is_known =
            self.documents.iter().any(|known| known.version == document.version && *known.body() == *document.body());
        if is_known {
            return Ok(false);
        }
        self.root = self.root.followed_by(document.clone())?;
        self.documents.push(document);
        self.revocations.forget_below(self.root.document().epoch);
        Ok(true)
    }

    /// Learns a revocation. Returns whether it was news.
    ///
    /// # Errors
    /// [`RevocationError`] if it does not hold.
    pub fn learn_revocation(&mut self, signed: SignedRevocation) -> Result<bool, RevocationError> {
        self.revocations.learn(signed, &self.root)
    }

    /// The root of the site.
    pub fn root(&self) -> &SiteRoot {
        &self.root
    }

    /// The root documents after some version; all of them after version 0.
    pub fn documents_after(&self, version: u64) -> impl Iterator<Item = &Sealed<RootDocument>> {
        self.documents.iter().filter(move |document| document.version > version)
    }

    /// All revocations that the node knows.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The lowest epoch of which certificates hold.
    pub fn epoch_min(&self) -> u64 {
        self.revocations.epoch_min().max(self.root.document().epoch)
    }

    /// How much the node knows, as it tells others.
    pub fn news(&self) -> TrustNews {
        TrustNews {
            root_version: self.root.document().version,
            epoch_min: self.epoch_min(),
            revocations: u32::try_from(self.revocations.len()).unwrap_or(u32::MAX),
            digest: self.revocations.digest(),
        }
    }
}
