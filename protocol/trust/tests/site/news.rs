//! What members tell each other of who is out.

use proptest::prelude::*;
use skep_protocol::limits;
use skep_trust::{PublicKey, Revoked, Serial, SiteNews, SiteView};

use crate::hall::*;

/// All pages that a member is told, as they go over the wire.
fn told(from: &SiteView, to: &SiteView) -> Vec<SiteNews> {
    let theirs = to.news();
    let mut pages = Vec::new();
    let mut next = from.missing_of(&theirs);
    while let Some(page) = next {
        let bytes = page.to_bytes();
        assert!(bytes.len() <= limits::SITE_NEWS_BYTES_MAX);
        assert_eq!(SiteNews::from_bytes(&bytes.into()).as_ref(), Ok(&page));
        next = from.missing_after(&theirs, &page);
        assert_eq!(next.is_some(), page.more, "a page says whether another one follows");
        pages.push(page);
    }
    pages
}

fn learn(view: &mut SiteView, pages: &[SiteNews]) {
    for page in pages {
        page.documents.iter().for_each(|document| assert!(view.learn_root(document.clone()).is_ok()));
        page.revocations.iter().for_each(|signed| assert!(view.learn_revocation(signed.clone()).is_ok()));
    }
}

fn revoke(view: &mut SiteView, what: Revoked) {
    assert_eq!(view.learn_revocation(revoked(what)), Ok(true));
}

#[test]
fn members_who_know_the_same_tell_each_other_nothing() {
    let mut view = view();
    assert!(told(&view, &view).is_empty());
    revoke(&mut view, Revoked::Key(key(ROBOT)));
    assert!(told(&view, &view).is_empty());
}

#[test]
fn a_member_that_was_away_is_told_root_documents_and_revocations_in_their_order() {
    let (mut here, mut away) = (view(), view());
    for _ in 0..3 {
        let next = after(here.root());
        here.learn_root(sealed_root(&next, &ROOTS)).unwrap();
    }
    revoke(&mut here, Revoked::Key(key(ROBOT)));
    revoke(&mut here, Revoked::BelowEpoch(EPOCH + 1));
    let pages = told(&here, &away);
    learn(&mut away, &pages);
    assert_eq!(away.news(), here.news());
    assert_eq!(away.epoch_min(), EPOCH + 1);
}

#[test]
fn what_does_not_fit_into_one_page_goes_into_others_and_none_is_left_out() {
    let (mut here, mut away) = (view(), view());
    let many = limits::REVOCATIONS_PER_REPLY_MAX + 10;
    for n in 0..many {
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&(n as u64).to_be_bytes());
        revoke(&mut here, Revoked::Serial(Serial::from_bytes(serial)));
    }
    let pages = told(&here, &away);
    assert_eq!(pages.iter().map(|page| page.revocations.len()).sum::<usize>(), many);
    assert!(pages.len() >= 2, "{}", pages.len());
    learn(&mut away, &pages);
    assert_eq!(away.news(), here.news());
}

#[test]
fn what_a_later_epoch_makes_needless_is_not_told() {
    let (mut here, mut ahead) = (view(), view());
    revoke(&mut here, Revoked::Key(key(ROBOT)));
    revoke(&mut ahead, Revoked::BelowEpoch(EPOCH + 1));
    assert!(told(&here, &ahead).is_empty());
    let pages = told(&ahead, &here);
    learn(&mut here, &pages);
    assert_eq!(here.news(), ahead.news());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn two_members_that_tell_each_other_what_they_have_end_with_the_same(
        ours in prop::collection::btree_set(any::<u8>(), 0..12),
        theirs in prop::collection::btree_set(any::<u8>(), 0..12),
        epochs in (EPOCH..EPOCH + 3, EPOCH..EPOCH + 3),
    ) {
        let known = |revoked: std::collections::BTreeSet<u8>, epoch: u64| {
            let mut view = view();
            revoked.iter().for_each(|n| revoke(&mut view, Revoked::Key(PublicKey::from_bytes([*n; 32]))));
            if epoch > EPOCH {
                revoke(&mut view, Revoked::BelowEpoch(epoch));
            }
            view
        };
        let (mut one, mut other) = (known(ours, epochs.0), known(theirs, epochs.1));
        let (to_one, to_other) = (told(&other, &one), told(&one, &other));
        learn(&mut one, &to_one);
        learn(&mut other, &to_other);
        prop_assert_eq!(one.news(), other.news());
    }
}
