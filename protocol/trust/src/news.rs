//! What one member tells another one before either judges the other: root documents and revocations, page by page.

use bytes::Bytes;
use prost::Message as _;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::FieldError;
use skep_protocol::limits;

use crate::hello::TrustNews;
use crate::ids::Digest;
use crate::revocation::{SEALED_REVOCATION, SignedRevocation};
use crate::root::RootDocument;
use crate::sealed::{SEALED, Sealed};
use crate::view::SiteView;
use crate::wire::{at_most, encoded, v1};

const WHAT: &str = "news of a site";
/// Bytes beside one statement in a page: its tag and its length.
const ITEM_BYTES_MAX: usize = 8;
/// Bytes beside all statements of a page.
const PAGE_BYTES_MAX: usize = limits::SITE_NEWS_BYTES_MAX - 16;

pub(crate) static NEWS: Fields = Fields(&[(1, Some(&SEALED)), (2, Some(&SEALED_REVOCATION)), (3, None)]);

/// A page of what a member knows of who belongs to its site. No key seals the page: what is in it is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteNews {
    /// Root documents, the earliest version first.
    pub documents: Vec<Sealed<RootDocument>>,
    /// Revocations.
    pub revocations: Vec<SignedRevocation>,
    /// Whether another page follows.
    pub more: bool,
}

impl SiteNews {
    /// The page in a protobuf form. Whether what is in it holds is another question.
    ///
    /// # Errors
    /// [`CodecError`] if it is none, or too large.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, CodecError> {
        let max = limits::SITE_NEWS_BYTES_MAX;
        if bytes.len() > max {
            return Err(CodecError::TooLarge { what: WHAT, bytes: bytes.len(), max });
        }
        let (came, unknown): (v1::SiteNews, _) = message(WHAT, bytes, &NEWS)?;
        if let Some(number) = unknown {
            return Err(malformed(WHAT, format!("field {number} of it is not known; upgrade this node")));
        }
        let wrong = |error: FieldError| malformed(WHAT, error);
        let roots = at_most("roots", came.roots, limits::ROOT_VERSIONS_MAX).map_err(wrong)?;
        let max = limits::REVOCATIONS_PER_REPLY_MAX;
        let revocations = at_most("revocations", came.revocations, max).map_err(wrong)?;
        let revocation = |came| SignedRevocation::from_wire(came).map_err(|error| malformed(WHAT, error));
        Ok(Self {
            documents: roots.into_iter().map(Sealed::from_wire).collect::<Result<_, CodecError>>()?,
            revocations: revocations.into_iter().map(revocation).collect::<Result<_, CodecError>>()?,
            more: came.more,
        })
    }

    /// The protobuf form of the page. A page of [`SiteView`] is within its bounds.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoded(&v1::SiteNews {
            roots: self.documents.iter().map(Sealed::to_wire).collect(),
            revocations: self.revocations.iter().map(SignedRevocation::to_wire).collect(),
            more: self.more,
        })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.revocations.is_empty()
    }
}

/// A page while statements are added to it.
#[derive(Default)]
struct Page {
    news: SiteNews,
    bytes: usize,
}

impl Page {
    /// Takes one more statement of so many bytes, if there is room; if not, another page follows.
    fn takes(&mut self, bytes: usize) -> bool {
        let filled = self.bytes + bytes + ITEM_BYTES_MAX;
        if filled > PAGE_BYTES_MAX {
            self.news.more = true;
            return false;
        }
        self.bytes = filled;
        true
    }

    fn end(self) -> Option<SiteNews> {
        (!self.news.is_empty()).then_some(self.news)
    }
}

impl SiteView {
    /// The first page of what a member with these news may lack; none if it lacks nothing.
    pub fn missing_of(&self, theirs: &TrustNews) -> Option<SiteNews> {
        self.page(theirs, theirs.root_version, None)
    }

    /// The page after one of these; none if that was the last one.
    pub fn missing_after(&self, theirs: &TrustNews, told: &SiteNews) -> Option<SiteNews> {
        if !told.more {
            return None;
        }
        // Revocations begin once all root documents are told.
        let version = told.documents.last().map_or(u64::MAX, |document| document.version);
        let name = told.revocations.last().map(|signed| signed.revocation.digest());
        self.page(theirs, version, name.as_ref())
    }

    fn page(&self, theirs: &TrustNews, version: u64, name: Option<&Digest>) -> Option<SiteNews> {
        let mut page = Page::default();
        for document in self.documents_after(version) {
            if !page.takes(document.to_wire().encoded_len()) {
                return page.end();
            }
            page.news.documents.push(document.clone());
        }
        if theirs.digest == self.revocations().digest() {
            return page.end();
        }
        let useful = self.revocations().after(name).filter(|(_, signed)| signed.revocation.is_needed(theirs.epoch_min));
        for (_, signed) in useful {
            let is_full = page.news.revocations.len() >= limits::REVOCATIONS_PER_REPLY_MAX;
            page.news.more |= is_full;
            if is_full || !page.takes(signed.to_wire().encoded_len()) {
                break;
            }
            page.news.revocations.push(SignedRevocation::clone(signed));
        }
        page.end()
    }
}
