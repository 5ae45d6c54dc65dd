//! The root of a site: the document on which everything else in it rests, and how another one takes its place.
//!
//! A node knows the first version by its hash, which is the site's id. The root keys of the version before seal each
//! later version, and so do its own: a node that follows them from the first one on needs to believe no other node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::limits;
use skep_protocol::text::{OperatorName, SiteName};

use crate::ids::{Digest, SiteId};
use crate::keys::PublicKey;
use crate::role::{SCOPE, Scope, scope, scope_to_wire};
use crate::sealed::{Sealed, Stated};
use crate::wire::{at_most, bytes_of, encoded, exactly, exactly_or_none, key, there, v1};

static ISSUER: Fields = Fields(&[(1, None), (2, Some(&SCOPE))]);
static OPERATOR: Fields = Fields(&[(1, None), (2, None)]);
pub(crate) static ROOT: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, Some(&ISSUER)),
    (8, Some(&OPERATOR)),
    (9, None),
    (10, None),
]);

/// What a site rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootDocument {
    /// Id of the site, and hash of the version before; none in the first version.
    pub after: Option<(SiteId, Digest)>,
    /// The version, 1 for the first one.
    pub version: u64,
    /// The name of the site, the same in each version.
    pub name: SiteName,
    /// Random bytes, the same in each version: two sites of the same keys and names are two.
    pub nonce: [u8; 16],
    /// Keys that may seal root documents, and certificates in place of an issuer.
    pub root_keys: BTreeSet<PublicKey>,
    /// Number of them that must seal.
    pub threshold: u32,
    /// Keys of the issuers of certificates, with the scope of each.
    pub issuers: BTreeMap<PublicKey, Scope>,
    /// Keys of the first operators, with the name of each.
    pub operators: BTreeMap<PublicKey, OperatorName>,
    /// The lowest epoch of which certificates hold.
    pub epoch: u64,
}

/// Why a node does not believe a root document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// There is no root document.
    #[error("there is no root document; copy the site's files from a member again")]
    Missing,
    /// A field that this Skep does not know changes what it means.
    #[error("field {field} of the root document is not known; upgrade this node")]
    UnknownField {
        /// The number of the field.
        field: u32,
    },
    /// The document is of another site.
    #[error("the root document is of another site")]
    OtherSite,
    /// The document does not follow the version that the node knows.
    #[error("the root document is version {found}; version {known} is known, and it does not follow that one")]
    NotNext {
        /// The version that the node knows; 0 for none.
        known: u64,
        /// Version of the document.
        found: u64,
    },
    /// Not enough of the root keys of a version sealed it.
    #[error("fewer than {threshold} of the root keys of version {of} sealed version {version}")]
    NotSealed {
        /// Version of the document.
        version: u64,
        /// Version whose root keys did not seal it.
        of: u64,
        /// Number of them that must seal.
        threshold: u32,
    },
    /// The document changes what no later version may.
    #[error("the root document changes {what}, which stays as it is")]
    Changed {
        /// What the document changes.
        what: &'static str,
    },
    /// There are as many versions as there can be.
    #[error("a site has at most {max} versions of its root document; make the site anew")]
    TooMany {
        /// The most that there can be.
        max: usize,
    },
}

/// The root of a site, as far as the node followed its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRoot {
    site: SiteId,
    latest: Sealed<RootDocument>,
    digest: Digest,
}

impl SiteRoot {
    /// The root of a first document. Its hash is the site's id: the caller checks that this is the site that is meant.
    ///
    /// # Errors
    /// [`RootError`] if it is no first document, or not sealed by its own root keys.
    pub fn first(document: Sealed<RootDocument>) -> Result<Self, RootError> {
        understood(&document)?;
        if document.version != 1 || document.after.is_some() {
            return Err(RootError::NotNext { known: 0, found: document.version });
        }
        sealed_by(&document, &document)?;
        let digest = document.digest();
        Ok(Self { site: SiteId::from_bytes(digest), latest: document, digest })
    }

    /// The root of all documents, the first one first.
    ///
    /// # Errors
    /// [`RootError`] of the first one that does not hold.
    pub fn follow(documents: impl IntoIterator<Item = Sealed<RootDocument>>) -> Result<Self, RootError> {
        let mut documents = documents.into_iter();
        let first = Self::first(documents.next().ok_or(RootError::Missing)?)?;
        documents.try_fold(first, |root, document| root.followed_by(document))
    }

    /// The root after another document.
    ///
    /// # Errors
    /// [`RootError`] if it does not follow this one, or too few root keys of either sealed it.
    pub fn followed_by(&self, document: Sealed<RootDocument>) -> Result<Self, RootError> {
        understood(&document)?;
        let (site, previous) = document.after.ok_or(RootError::OtherSite)?;
        if site != self.site {
            return Err(RootError::OtherSite);
        }
        let follows = previous == self.digest && self.latest.version.checked_add(1) == Some(document.version);
        if !follows {
            return Err(RootError::NotNext { known: self.latest.version, found: document.version });
        }
        if document.version > limits::ROOT_VERSIONS_MAX as u64 {
            return Err(RootError::TooMany { max: limits::ROOT_VERSIONS_MAX });
        }
        let changed = [
            (document.name != self.latest.name, "the name of the site"),
            (document.nonce != self.latest.nonce, "the nonce of the site"),
            (document.epoch < self.latest.epoch, "the epoch to an earlier one"),
        ];
        if let Some((_, what)) = changed.into_iter().find(|(is_changed, _)| *is_changed) {
            return Err(RootError::Changed { what });
        }
        sealed_by(&document, &self.latest)?;
        sealed_by(&document, &document)?;
        let digest = document.digest();
        Ok(Self { site: self.site, latest: document, digest })
    }

    /// Id of the site.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// The latest document.
    pub fn document(&self) -> &RootDocument {
        self.latest.statement()
    }

    /// The latest document, as it was sealed.
    pub fn sealed(&self) -> &Sealed<RootDocument> {
        &self.latest
    }

    /// The hash of the latest document.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether as many root keys sealed this as must.
    pub fn has_sealed<T: Stated>(&self, sealed: &Sealed<T>) -> bool {
        let document = self.document();
        sealed.is_sealed_by_some(&document.root_keys, document.threshold as usize)
    }

    /// Whether it has one root key only, so that its holder has the site. A node says so.
    pub fn rests_on_one_key(&self) -> bool {
        self.document().threshold == 1
    }
}

fn understood(document: &Sealed<RootDocument>) -> Result<(), RootError> {
    document.unknown_field().map_or(Ok(()), |field| Err(RootError::UnknownField { field }))
}

/// Checks that as many root keys of one version sealed a document as must.
fn sealed_by(document: &Sealed<RootDocument>, of: &RootDocument) -> Result<(), RootError> {
    if document.is_sealed_by_some(&of.root_keys, of.threshold as usize) {
        return Ok(());
    }
    Err(RootError::NotSealed { version: document.version, of: of.version, threshold: of.threshold })
}

fn issuer(stated: &v1::RootIssuer) -> Result<(PublicKey, Scope), FieldError> {
    let granted = there("issuers.scope", stated.scope.as_ref())?;
    Ok((key("issuers.key", &stated.key)?, scope(granted)?))
}

fn operator(stated: &v1::RootOperator) -> Result<(PublicKey, OperatorName), FieldError> {
    Ok((key("operators.key", &stated.key)?, OperatorName::new(&stated.name).in_field("operators.name")?))
}

fn after(stated: &v1::RootStatement) -> Result<Option<(SiteId, Digest)>, FieldError> {
    let site = exactly_or_none("site", &stated.site)?.map(SiteId::from_bytes);
    match (site, exactly_or_none("previous", &stated.previous)?) {
        (None, None) => Ok(None),
        (Some(site), Some(previous)) => Ok(Some((site, previous))),
        (None, Some(_)) | (Some(_), None) => Err(field("previous", "give it and the site, or neither")),
    }
}

fn document(stated: v1::RootStatement) -> Result<RootDocument, FieldError> {
    let after = after(&stated)?;
    let is_first = stated.version == 1;
    if stated.version == 0 || is_first != after.is_none() {
        return Err(field("version", "the first one is 1, and names no version before"));
    }
    let keys = at_most("root_keys", stated.root_keys, limits::ROOT_KEYS_MAX)?;
    let root_keys: BTreeSet<PublicKey> =
        keys.iter().map(|given| key("root_keys", given)).collect::<Result<_, FieldError>>()?;
    let threshold = stated.threshold;
    if threshold == 0 || threshold as usize > root_keys.len() {
        return Err(field("threshold", format!("give 1 to {}, as many as there are root keys", root_keys.len())));
    }
    let issuers = at_most("issuers", stated.issuers, limits::ROOT_NAMES_MAX)?;
    let operators = at_most("operators", stated.operators, limits::ROOT_NAMES_MAX)?;
    Ok(RootDocument {
        after,
        version: stated.version,
        name: SiteName::new(&stated.name).in_field("name")?,
        nonce: exactly("nonce", &stated.nonce)?,
        root_keys,
        threshold,
        issuers: issuers.iter().map(issuer).collect::<Result<_, FieldError>>()?,
        operators: operators.iter().map(operator).collect::<Result<_, FieldError>>()?,
        epoch: stated.epoch,
    })
}

impl Stated for RootDocument {
    const WHAT: &'static str = "root document";
    const DOMAIN: &'static [u8] = b"skep/root/1\0";
    const BYTES_MAX: usize = limits::ROOT_BYTES_MAX;
    // Those of the root keys of two versions.
    const SEALS_MAX: usize = 2 * limits::ROOT_KEYS_MAX;

    fn to_body(&self) -> Vec<u8> {
        let issuer = |(key, scope): (&PublicKey, &Scope)| v1::RootIssuer {
            key: key.as_bytes().to_vec(),
            scope: Some(scope_to_wire(scope)),
        };
        let operator = |(key, name): (&PublicKey, &OperatorName)| v1::RootOperator {
            key: key.as_bytes().to_vec(),
            name: name.to_string(),
        };
        encoded(&v1::RootStatement {
            site: bytes_of(self.after.as_ref().map(|(site, _)| site.as_bytes())),
            version: self.version,
            name: self.name.to_string(),
            nonce: self.nonce.to_vec(),
            root_keys: self.root_keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            threshold: self.threshold,
            issuers: self.issuers.iter().map(issuer).collect(),
            operators: self.operators.iter().map(operator).collect(),
            epoch: self.epoch,
            previous: bytes_of(self.after.as_ref().map(|(_, previous)| previous)),
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &ROOT)?;
        Ok((document(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
