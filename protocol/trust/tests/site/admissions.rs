//! Which peers a node lets in, and which it cuts off again.

use bytes::Bytes;
use skep_protocol::limits;
use skep_trust::{
    Admission, Admitted, Certificate, ChainError, Refusal, Revoked, Role, RootDocument, Serial, SiteClock, SiteTime,
    SiteView, Standing, TrustHello, judge,
};

use crate::hall::*;

const NOW: SiteClock = SiteClock::Known(SiteTime(1_500_000));

fn shown(certificate: &Certificate) -> Bytes {
    chain_of(certificate).to_bytes().into()
}

fn admit(view: &SiteView, certificate: &Certificate, clock: SiteClock) -> Result<Admitted, Refusal> {
    Admission::default().admit(view, &shown(certificate), certificate.key, clock)
}

#[test]
fn a_member_is_let_in_and_what_was_verified_once_is_not_verified_again() {
    let mut admission = Admission::default();
    for _ in 0..3 {
        let admitted = admission.admit(&view(), &shown(&robot()), key(ROBOT), NOW).unwrap();
        assert_eq!((admitted.member.key, admitted.standing), (key(ROBOT), Standing::Fresh));
        assert_eq!(admission.len(), 1);
    }
}

#[test]
fn nobody_is_let_in_by_the_certificate_of_somebody_else() {
    let refused = |admission: &mut Admission| {
        let error = admission.admit(&view(), &shown(&robot()), key(STRANGER), NOW).unwrap_err();
        assert_eq!(error, Refusal::WrongKey { peer: key(STRANGER), named: key(ROBOT) });
    };
    let mut admission = Admission::default();
    refused(&mut admission);
    assert!(admission.is_empty(), "nothing was verified for it");
    admission.admit(&view(), &shown(&robot()), key(ROBOT), NOW).unwrap();
    refused(&mut admission);
}

#[test]
fn a_certificate_of_an_earlier_epoch_is_refused_and_one_of_a_later_epoch_is_not() {
    let at = |epoch| admit(&view(), &Certificate { epoch, ..robot() }, NOW).map(|admitted| admitted.member.epoch);
    assert_eq!(at(EPOCH - 1), Err(Refusal::LowerEpoch { epoch: EPOCH - 1, epoch_min: EPOCH }));
    assert_eq!(at(EPOCH), Ok(EPOCH));
    assert_eq!(at(EPOCH + 1), Ok(EPOCH + 1), "this node has not heard yet");
}

#[test]
fn a_certificate_is_refused_before_and_after_its_time_and_in_doubt_without_a_clock() {
    let at = |clock| admit(&view(), &robot(), clock).map(|admitted| admitted.standing);
    assert_eq!(at(SiteClock::Known(LIFE.until)), Ok(Standing::Fresh));
    let (late, early) = (LIFE.until.plus_ms(1), SiteTime(LIFE.from.0 - limits::CLOCK_LEAD_MS_MAX - 1));
    for clock in [SiteClock::Known(late), SiteClock::AtLeast(late)] {
        assert_eq!(at(clock), Err(Refusal::Expired { until: LIFE.until }));
    }
    assert_eq!(at(SiteClock::Known(early)), Err(Refusal::NotYetValid { from: LIFE.from }));
    assert_eq!(at(SiteClock::AtLeast(SiteTime::default())), Ok(Standing::Stale), "a robot that boots in 1970");
}

#[test]
fn whoever_is_revoked_is_let_out_and_not_let_in_again() {
    let mut view = view();
    let mut admission = Admission::default();
    let admitted = admission.admit(&view, &shown(&robot()), key(ROBOT), NOW).unwrap();
    assert_eq!(judge(&view, &admitted.member, NOW), Ok(Standing::Fresh));
    assert_eq!(view.learn_revocation(revoked(Revoked::Key(key(ROBOT)))), Ok(true));
    let out = Refusal::Revoked { what: Revoked::Key(key(ROBOT)) };
    assert_eq!(judge(&view, &admitted.member, NOW), Err(out.clone()));
    assert_eq!(admission.admit(&view, &shown(&robot()), key(ROBOT), NOW), Err(out.clone()), "it was known to hold");
    // Another certificate of the same key, and without a clock.
    let renewed = Certificate { serial: Serial::from_bytes([31; 16]), ..robot() };
    for clock in [NOW, SiteClock::AtLeast(SiteTime::default())] {
        assert_eq!(admit(&view, &renewed, clock), Err(out.clone()));
    }
}

#[test]
fn a_raised_epoch_and_another_root_document_have_every_member_judged_again() {
    let mut view = view();
    let mut admission = Admission::default();
    let admitted = admission.admit(&view, &shown(&robot()), key(ROBOT), NOW).unwrap();
    let next = RootDocument { epoch: EPOCH + 2, issuers: [].into(), ..after(view.root()) };
    assert_eq!(view.learn_root(sealed_root(&next, &ROOTS)), Ok(true));
    assert_eq!(view.epoch_min(), EPOCH + 2);
    let lower = Refusal::LowerEpoch { epoch: EPOCH, epoch_min: EPOCH + 2 };
    assert_eq!(judge(&view, &admitted.member, NOW), Err(lower));
    // Its issuer is not one any more: what was known to hold under the document before says nothing.
    let unknown = Refusal::Chain(ChainError::UnknownIssuer { issuer: key(ISSUER) });
    assert_eq!(admission.admit(&view, &shown(&robot()), key(ROBOT), NOW), Err(unknown));
}

#[test]
fn the_oldest_chain_is_forgotten_when_there_is_no_room_and_verified_again() {
    let (view, mut admission) = (view(), Admission::default());
    // The chains differ by a field that may be passed over, so that one signature does for all of them.
    let chain = shown(&robot());
    let other = |n: usize| {
        let field = [&[0xc0, 0x02][..], &[0x80 | (n & 0x7f) as u8, (n >> 7) as u8]].concat();
        Bytes::from([&chain[..], &field].concat())
    };
    for n in 0..=limits::CHAINS_KEPT_MAX {
        admission.admit(&view, &other(n), key(ROBOT), NOW).unwrap();
    }
    assert_eq!(admission.len(), limits::CHAINS_KEPT_MAX);
    assert!(admission.admit(&view, &other(0), key(ROBOT), NOW).is_ok());
    assert_eq!(admission.len(), limits::CHAINS_KEPT_MAX);
}

#[test]
fn what_is_shown_and_is_no_chain_is_refused() {
    let mut admission = Admission::default();
    for rubbish in [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![0; limits::CHAIN_BYTES_MAX + 1])] {
        let error = admission.admit(&view(), &rubbish, key(ROBOT), NOW).unwrap_err();
        assert!(matches!(error, Refusal::Chain(_)), "{error}");
    }
    let error = admission.admit(&view(), &Bytes::from_static(b"hello"), key(ROBOT), NOW).unwrap_err();
    assert_eq!(error.kind(), "malformed");
}

#[test]
fn a_hello_of_a_member_is_read_as_it_was_written() {
    let mut view = view();
    view.learn_revocation(revoked(Revoked::Key(key(STRANGER)))).unwrap();
    let voter = chain(&[sponsored(VOTER, grants("edge-1", &[Role::Voter]))]);
    let hello = TrustHello { chain: voter, news: view.news() };
    assert_eq!(hello.news.revocations, 1);
    assert_eq!(TrustHello::from_bytes(&hello.to_bytes().into()), Ok(hello));
    assert!(TrustHello::from_bytes(&Bytes::from(vec![0; 2 * limits::CHAIN_BYTES_MAX])).is_err());
}
