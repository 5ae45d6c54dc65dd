//! Which root documents a node believes.

use skep_protocol::codec::CodecError;
use skep_protocol::limits;
use skep_trust::{RootDocument, RootError, Sealed, SiteId, SiteRoot, SiteView};

use crate::hall::*;

/// The root after a document that these keys sealed.
fn next(document: &RootDocument, by: &[u8]) -> Result<u64, RootError> {
    root().followed_by(sealed_root(document, by)).map(|root| root.document().version)
}

#[test]
fn a_site_is_the_hash_of_its_first_document_whoever_sealed_it() {
    assert_eq!(root().site().as_bytes(), &sealed_root(&document(), &[]).digest());
    assert_eq!(SiteRoot::first(sealed_root(&document(), &[2, 3])).unwrap().site(), site());
    let twin = RootDocument { nonce: [8; 16], ..document() };
    assert_ne!(SiteRoot::first(sealed_root(&twin, &ROOTS)).unwrap().site(), site());
    assert!(!root().rests_on_one_key());
}

#[test]
fn a_first_document_holds_by_as_many_of_its_own_keys_as_must_seal_it() {
    let few = RootError::NotSealed { version: 1, of: 1, threshold: 2 };
    for by in [&[][..], &[1], &[STRANGER, 1], &[ISSUER, OPERATOR]] {
        assert_eq!(SiteRoot::first(sealed_root(&document(), by)), Err(few.clone()), "{by:?}");
    }
    let seal = sealed_root(&document(), &[1]).with_seal_of(&secret(3)).unwrap();
    assert!(SiteRoot::first(seal).is_ok(), "keys need not be on one machine");
    let twice = sealed_root(&document(), &[1]).with_seal_of(&secret(1));
    assert!(matches!(twice, Err(CodecError::Malformed { .. })), "one key counts once");
}

#[test]
fn another_document_follows_by_the_keys_of_both_versions() {
    // Keys 1 and 2 go, 4 and 5 come.
    let rotated = RootDocument { root_keys: [3, 4, 5].map(key).into(), ..after(&root()) };
    assert_eq!(next(&rotated, &[1, 2, 4, 5]), Ok(2));
    assert_eq!(next(&rotated, &[1, 3, 4]), Ok(2), "a key of both counts for both");
    assert_eq!(next(&rotated, &[4, 5]), Err(RootError::NotSealed { version: 2, of: 1, threshold: 2 }));
    assert_eq!(next(&rotated, &[1, 2]), Err(RootError::NotSealed { version: 2, of: 2, threshold: 2 }));
    // And a third document by the keys of the second, whoever has the first keys.
    let second = root().followed_by(sealed_root(&rotated, &[1, 2, 4, 5])).unwrap();
    let third = after(&second);
    assert!(second.followed_by(sealed_root(&third, &[1, 2])).is_err());
    assert_eq!(second.followed_by(sealed_root(&third, &[4, 5])).map(|root| root.site()), Ok(site()));
}

#[test]
fn a_document_that_does_not_follow_is_refused_with_its_reason() {
    let good = after(&root());
    let with = |change: fn(RootDocument) -> RootDocument| next(&change(after(&root())), &ROOTS);
    assert_eq!(next(&good, &ROOTS), Ok(2));
    assert_eq!(next(&document(), &ROOTS), Err(RootError::OtherSite));
    let elsewhere =
        |of: RootDocument| RootDocument { after: of.after.map(|(_, p)| (SiteId::from_bytes([7; 32]), p)), ..of };
    assert_eq!(with(elsewhere), Err(RootError::OtherSite));
    let skipped = |of: RootDocument| RootDocument { version: 3, ..of };
    assert_eq!(with(skipped), Err(RootError::NotNext { known: 1, found: 3 }));
    let other = |of: RootDocument| RootDocument { after: of.after.map(|(site, _)| (site, [7; 32])), ..of };
    assert_eq!(with(other), Err(RootError::NotNext { known: 1, found: 2 }));
    for change in [
        (|of: RootDocument| RootDocument { name: "yard".parse().unwrap(), ..of }) as fn(RootDocument) -> RootDocument,
        |of: RootDocument| RootDocument { nonce: [1; 16], ..of },
        |of: RootDocument| RootDocument { epoch: EPOCH - 1, ..of },
    ] {
        assert!(matches!(with(change), Err(RootError::Changed { .. })));
    }
}

#[test]
fn a_document_that_nobody_could_follow_is_none() {
    let none = |document: RootDocument| {
        assert!(matches!(Sealed::seal(&document, &[]), Err(CodecError::Malformed { .. })), "{document:?}");
    };
    none(RootDocument { threshold: 0, ..document() });
    none(RootDocument { threshold: 4, ..document() });
    none(RootDocument { root_keys: [].into(), ..document() });
    none(RootDocument { root_keys: [1, 2, 3, 4, 5, 6].map(key).into(), ..document() });
    none(RootDocument { version: 0, ..document() });
    none(RootDocument { version: 2, ..document() });
    none(RootDocument { version: 1, ..after(&root()) });
    let issuers = (0..=limits::ROOT_NAMES_MAX as u8).map(|n| (key(n), scope(&[skep_trust::Role::Robot])));
    none(RootDocument { issuers: issuers.collect(), ..document() });
}

#[test]
fn a_field_that_changes_what_a_document_means_refuses_it() {
    let body = sealed_root(&document(), &[]).body().clone();
    let with = |field: &[u8]| {
        let by = ROOTS.map(secret);
        let sealed = Sealed::seal_body([&body[..], field].concat().into(), &[&by[0], &by[1]]).unwrap();
        SiteRoot::first(sealed).map(|root| root.document().version)
    };
    assert_eq!(with(&[0xf8, 0x01, 1]), Err(RootError::UnknownField { field: 31 }));
    assert_eq!(with(&[0xc0, 0x02, 1]), Ok(1));
}

#[test]
fn whoever_has_all_documents_comes_to_the_latest_and_whoever_has_it_learns_no_other() {
    let second = after(&root());
    let rival = RootDocument { epoch: EPOCH + 9, ..after(&root()) };
    let (first, second, rival) =
        (sealed_root(&document(), &ROOTS), sealed_root(&second, &ROOTS), sealed_root(&rival, &ROOTS));
    assert_eq!(SiteRoot::follow([]), Err(RootError::Missing));
    let mut view = SiteView::new(vec![first.clone(), second.clone()]).unwrap();
    assert_eq!(view.root().document().version, 2);
    assert_eq!(view.learn_root(first), Ok(false));
    assert_eq!(view.learn_root(second), Ok(false));
    assert_eq!(view.learn_root(rival), Err(RootError::NotNext { known: 2, found: 2 }));
    let documents = |after| view.documents_after(after).map(|document| document.version).collect::<Vec<_>>();
    assert_eq!((documents(0), documents(1), documents(2)), (vec![1, 2], vec![2], vec![]));
}
