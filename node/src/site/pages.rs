//! Root documents and revocations as they stand in files: page after page, each with its length before it.

use bytes::{Buf as _, Bytes};
use skep_protocol::codec::CodecError;
use skep_trust::{RevocationError, RootDocument, RootError, Sealed, SignedRevocation, SiteNews, SiteView, TrustNews};

/// All root documents.
pub(super) fn documents(view: &SiteView) -> Vec<u8> {
    pages(view, &TrustNews { root_version: 0, ..view.news() })
}

/// All revocations.
pub(super) fn revocations(view: &SiteView) -> Vec<u8> {
    pages(view, &TrustNews { epoch_min: 0, revocations: 0, digest: [0; 32], ..view.news() })
}

/// What a member lacks that knows so much.
fn pages(view: &SiteView, known: &TrustNews) -> Vec<u8> {
    let mut body = Vec::new();
    let mut next = view.missing_of(known);
    while let Some(page) = next {
        let bytes = page.to_bytes();
        // A page is far below 4 GiB.
        body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(&bytes);
        next = view.missing_after(known, &page);
    }
    body
}

/// What all pages hold together.
pub(super) fn read(body: &[u8]) -> Result<SiteNews, CodecError> {
    const WHAT: &str = "pages of a site";
    let mut rest = Bytes::copy_from_slice(body);
    let mut all = SiteNews::default();
    while !rest.is_empty() {
        let length = rest.try_get_u32().map_err(|_| cut_off(WHAT))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(cut_off(WHAT));
        }
        let SiteNews { documents, revocations, .. } = SiteNews::from_bytes(&rest.split_to(length))?;
        all.documents.extend(documents);
        all.revocations.extend(revocations);
    }
    Ok(all)
}

fn cut_off(what: &'static str) -> CodecError {
    CodecError::Malformed { what, why: "it is cut off".to_owned() }
}

/// Why documents and revocations do not make a view.
pub(super) enum ViewError {
    Root(RootError),
    Revocation(RevocationError),
}

/// What a node knew that wrote these. A revocation may be the word of an operator whom only an earlier root document
/// names: it was believed then, and what is out stays out.
pub(super) fn view(
    documents: Vec<Sealed<RootDocument>>,
    revocations: Vec<SignedRevocation>,
) -> Result<SiteView, ViewError> {
    let mut documents = documents.into_iter();
    let first = documents.next().into_iter().collect();
    let mut view = SiteView::new(first).map_err(ViewError::Root)?;
    let mut fault = None;
    let mut rest = learn(&mut view, revocations, &mut fault);
    for document in documents {
        view.learn_root(document).map_err(ViewError::Root)?;
        rest = learn(&mut view, rest, &mut fault);
    }
    match fault {
        Some(error) if !rest.is_empty() => Err(ViewError::Revocation(error)),
        Some(_) | None => Ok(view),
    }
}

/// Learns revocations, and gives those back that do not hold, with the latest reason.
fn learn(
    view: &mut SiteView,
    revocations: Vec<SignedRevocation>,
    fault: &mut Option<RevocationError>,
) -> Vec<SignedRevocation> {
    let mut rest = Vec::new();
    for signed in revocations {
        if let Err(error) = view.learn_revocation(signed.clone()) {
            *fault = Some(error);
            rest.push(signed);
        }
    }
    rest
}
