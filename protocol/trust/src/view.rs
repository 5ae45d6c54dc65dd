//! What a node knows of its site: the root documents, and who is out. It only ever learns: nothing here falls back.

use skep_protocol::limits;

use crate::hello::TrustNews;
use crate::revocation::{RevocationError, SignedRevocation};
use crate::revocations::Revocations;
use crate::root::{RootDocument, RootError, SiteRoot};
use crate::sealed::Sealed;

/// What a node knows of its site. It is written down whole, and never taken back to what it was.
#[derive(Clone, Debug)]
pub struct SiteView {
    root: SiteRoot,
    /// All versions, the first one first.
    documents: Vec<Sealed<RootDocument>>,
    revocations: Revocations,
}

impl SiteView {
    /// From all root documents, the first one first. Whether that is the site that is meant is the caller's question.
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

    /// From what was known before, and written down: all root documents, the revocations, and the earliest epoch. Root
    /// documents are followed again. Of revocations it was verified when they came that an operator of then stated them.
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

    /// Takes note of another root document. Whether it was news.
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

    /// Takes note of a revocation. Whether it was news.
    ///
    /// # Errors
    /// [`RevocationError`] if it does not hold.
    pub fn learn_revocation(&mut self, signed: SignedRevocation) -> Result<bool, RevocationError> {
        self.revocations.learn(signed, &self.root)
    }

    /// The root.
    pub fn root(&self) -> &SiteRoot {
        &self.root
    }

    /// The root documents after some version; all of them after version 0.
    pub fn documents_after(&self, version: u64) -> impl Iterator<Item = &Sealed<RootDocument>> {
        self.documents.iter().filter(move |document| document.version > version)
    }

    /// Who is out.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Certificates of an epoch below this one do not hold.
    pub fn epoch_min(&self) -> u64 {
        self.revocations.epoch_min().max(self.root.document().epoch)
    }

    /// How much that is, for others.
    pub fn news(&self) -> TrustNews {
        TrustNews {
            root_version: self.root.document().version,
            epoch_min: self.epoch_min(),
            revocations: u32::try_from(self.revocations.len()).unwrap_or(u32::MAX),
            digest: self.revocations.digest(),
        }
    }
}
