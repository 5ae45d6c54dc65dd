//! Which members are out, and that all members come to know the same of it.

use std::sync::Arc;

use proptest::prelude::*;
use skep_protocol::limits;
use skep_trust::{
    Certificate, Grants, PublicKey, Revocation, RevocationError, Revocations, Revoked, Role, RootDocument, Serial,
    SignedRevocation, SiteId, SiteTime,
};

use crate::hall::*;

fn learned(revoked: &[SignedRevocation]) -> Revocations {
    let mut revocations = Revocations::default();
    for signed in revoked {
        revocations.learn(signed.clone(), &root()).unwrap();
    }
    revocations
}

fn is_out(revocations: &Revocations, certificate: &Certificate) -> bool {
    revocations.revoking(&chain_of(certificate).verify(&root()).unwrap()).is_some()
}

#[test]
fn a_revocation_is_about_a_key_a_serial_or_what_an_issuer_issued_from_some_instant_on() {
    let other = certificate(31, grants("robot-8", &[Role::Robot]));
    let renewed = Certificate { serial: Serial::from_bytes([99; 16]), ..robot() };
    let out = |what| {
        let revocations = learned(&[revoked(what)]);
        [&robot(), &renewed, &other].map(|certificate| is_out(&revocations, certificate))
    };
    assert_eq!(out(Revoked::Key(key(ROBOT))), [true, true, false]);
    assert_eq!(out(Revoked::Serial(robot().serial)), [true, false, false]);
    assert_eq!(out(Revoked::Key(key(ISSUER))), [true, true, true], "what it issued goes with it");
    let since = |since| out(Revoked::Issued { issuer: key(ISSUER), since });
    assert_eq!(since(LIFE.from), [true; 3]);
    assert_eq!(since(LIFE.from.plus_ms(1)), [false; 3], "they were issued before");
    let elsewhere = Revoked::Issued { issuer: key(STRANGER), since: SiteTime(0) };
    assert_eq!(out(elsewhere), [false; 3]);
}

#[test]
fn an_issuer_that_is_out_takes_those_below_it_along() {
    let deputy = sponsored(11, grants("deputy", &[Role::Issuer]));
    let below = Certificate { issuer: Some(key(11)), ..robot() };
    let member = chain(&[link(&below, 11), deputy]).verify(&root()).unwrap();
    for what in [Revoked::Key(key(11)), Revoked::Serial(Serial::from_bytes([11; 16]))] {
        assert_eq!(learned(&[revoked(what)]).revoking(&member), Some(what));
    }
}

#[test]
fn a_member_that_joined_again_in_a_later_epoch_is_in() {
    let revocations = learned(&[revoked(Revoked::Key(key(ROBOT)))]);
    assert!(is_out(&revocations, &robot()));
    assert!(!is_out(&revocations, &Certificate { epoch: EPOCH + 1, ..robot() }));
}

#[test]
fn operators_alone_revoke() {
    let stated = |by: u8| Revocation { operator: key(by), ..revocation(Revoked::Key(key(ROBOT))) };
    let learn = |signed: SignedRevocation| Revocations::default().learn(signed, &root());
    assert_eq!(learn(signed(&stated(OPERATOR), OPERATOR)), Ok(true));
    assert_eq!(learn(signed(&stated(OPERATOR), STRANGER)), Err(RevocationError::NotSealed));
    let not_allowed =
        |learned: Result<bool, RevocationError>| matches!(learned, Err(RevocationError::NotAllowed { .. }));
    assert!(not_allowed(learn(signed(&stated(ISSUER), ISSUER))) && not_allowed(learn(signed(&stated(ROBOT), ROBOT))));
    let elsewhere = Revocation { site: SiteId::from_bytes([7; 32]), ..stated(OPERATOR) };
    assert_eq!(learn(signed(&elsewhere, OPERATOR)), Err(RevocationError::OtherSite));
    // With a chain: an operator by certificate, and a robot.
    let with = |grants: Grants, what: Revoked| {
        let chain = chain(&[sponsored(21, grants)]);
        learn(SignedRevocation { chain: Some(chain), ..signed(&Revocation { what, ..stated(21) }, 21) })
    };
    let operator = || grants("night-shift", &[Role::Operator]);
    assert_eq!(with(operator(), Revoked::Key(key(ROBOT))), Ok(true));
    assert!(not_allowed(with(grants("robot-9", &[Role::Robot]), Revoked::Key(key(ROBOT)))));
    assert!(not_allowed(with(operator(), Revoked::BelowEpoch(EPOCH + 1))), "first operators alone end an epoch");
}

#[test]
fn no_revocation_takes_a_site_to_an_epoch_to_which_it_cannot_have_come() {
    let far = EPOCH + limits::CERTIFICATE_EPOCHS_AHEAD_MAX + 1;
    let mut revocations = Revocations::default();
    let ahead = Err(RevocationError::Ahead { found: far, known: EPOCH });
    assert_eq!(revocations.learn(revoked(Revoked::BelowEpoch(far)), &root()), ahead);
    let stated = Revocation { epoch: far, ..revocation(Revoked::Key(key(ROBOT))) };
    assert_eq!(revocations.learn(signed(&stated, OPERATOR), &root()), ahead);
    assert_eq!((revocations.len(), revocations.epoch_min()), (0, 0));
}

#[test]
fn the_end_of_an_epoch_makes_room() {
    let mut revocations = learned(&[revoked(Revoked::Key(key(ROBOT))), revoked(Revoked::Key(key(VOTER)))]);
    let later = Revocation { epoch: EPOCH + 1, ..revocation(Revoked::Key(key(STRANGER))) };
    let later = signed(&later, OPERATOR);
    assert_eq!(revocations.learn(later.clone(), &root()), Ok(true));
    assert_eq!(revocations.learn(revoked(Revoked::BelowEpoch(EPOCH + 1)), &root()), Ok(true));
    assert_eq!((revocations.len(), revocations.epoch_min()), (2, EPOCH + 1), "the later one, and the end");
    assert_eq!(revocations.learn(later, &root()), Ok(false));
    assert_eq!(revocations.learn(revoked(Revoked::Key(key(ROBOT))), &root()), Ok(false), "it is needless");
    assert_eq!(revocations.learn(revoked(Revoked::BelowEpoch(EPOCH)), &root()), Ok(false), "it never falls");
    assert_eq!(revocations.epoch_min(), EPOCH + 1);
}

#[test]
fn one_more_revocation_than_there_is_room_for_is_refused_until_an_epoch_ends() {
    let mut revocations = Revocations::default();
    let one = Revocation { epoch: EPOCH + 2, ..revocation(Revoked::Key(key(ROBOT))) };
    let nth = |n: usize| {
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&(n as u64).to_be_bytes());
        signed(&Revocation { what: Revoked::Serial(Serial::from_bytes(serial)), ..one.clone() }, OPERATOR)
    };
    let root = root();
    for n in 0..limits::REVOCATIONS_MAX {
        assert_eq!(revocations.learn(nth(n), &root), Ok(true), "{n}");
    }
    let full = RevocationError::Full { max: limits::REVOCATIONS_MAX };
    assert_eq!(revocations.learn(nth(limits::REVOCATIONS_MAX), &root), Err(full));
    // The end of an earlier epoch makes no room, and changes nothing.
    let digest = revocations.digest();
    let early = revocations.learn(revoked(Revoked::BelowEpoch(EPOCH + 1)), &root);
    assert_eq!(early, Err(RevocationError::Full { max: limits::REVOCATIONS_MAX }));
    assert_eq!((revocations.epoch_min(), revocations.digest()), (0, digest));
    assert_eq!(revocations.learn(revoked(Revoked::BelowEpoch(EPOCH + 3)), &root), Ok(true));
    assert_eq!(revocations.len(), 1);
}

#[test]
fn what_was_revoked_is_told_in_pages() {
    let all: Vec<SignedRevocation> = (100..110).map(|n| revoked(Revoked::Key(key(n)))).collect();
    let revocations = learned(&all);
    let (mut told, mut after) = (Vec::new(), None);
    while let Some((name, signed)) = revocations.after(after.as_ref()).next() {
        assert_eq!(*name, signed.revocation.digest());
        told.push(Arc::clone(signed));
        after = Some(*name);
    }
    let other = learned(&told.iter().map(|signed| signed.as_ref().clone()).collect::<Vec<_>>());
    assert_eq!((other.len(), other.digest()), (10, revocations.digest()));
    let one_less = learned(&all[1..]);
    assert_ne!(one_less.digest(), revocations.digest());
    let bytes = all[0].to_bytes().into();
    assert_eq!(SignedRevocation::from_bytes(&bytes).as_ref(), Ok(&all[0]));
}

fn what() -> impl Strategy<Value = (Revoked, u64)> {
    let someone = || (0..6_u8).prop_map(key);
    let what = prop_oneof![
        4 => someone().prop_map(Revoked::Key),
        4 => (0..6_u8).prop_map(|n| Revoked::Serial(Serial::from_bytes([n; 16]))),
        2 => (someone(), 0..4_u64).prop_map(|(issuer, since): (PublicKey, u64)| {
            Revoked::Issued { issuer, since: SiteTime(LIFE.from.0 + since) }
        }),
        1 => (0..EPOCH + 4).prop_map(Revoked::BelowEpoch),
    ];
    (what, 0..EPOCH + 4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn in_whatever_order_nodes_learn_they_come_to_know_the_same(
        (said, shuffled) in prop::collection::vec(what(), 0..20).prop_flat_map(|said| (Just(said.clone()), Just(said).prop_shuffle())),
        epoch in EPOCH..EPOCH + 3,
    ) {
        let document = RootDocument { epoch, ..after(&root()) };
        let learn = |said: &[(Revoked, u64)], first: bool| {
            let mut view = view();
            let document = sealed_root(&document, &ROOTS);
            if first {
                view.learn_root(document.clone()).unwrap();
            }
            let mut floor = 0;
            for (what, epoch) in said {
                let stated = Revocation { epoch: *epoch, ..revocation(*what) };
                view.learn_revocation(signed(&stated, OPERATOR)).unwrap();
                assert!(view.epoch_min() >= floor, "it fell");
                floor = view.epoch_min();
            }
            view.learn_root(document).unwrap();
            view.news()
        };
        prop_assert_eq!(learn(&said, true), learn(&shuffled, false));
    }
}
