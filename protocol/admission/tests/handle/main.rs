//! One view of a site for all connections of a node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod hall;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hall::*;
use skep_admission::{KeepError, LearnError, SiteHandle};
use skep_protocol::limits;
use skep_trust::{
    Chain, ChainError, PublicKey, Refusal, RevocationError, Revoked, RootDocument, RootError, SiteClock, SiteNews,
    SiteTime, SiteView, Standing, TrustHello, TrustNews, Validity,
};

fn shown(of: u8, validity: Validity) -> Bytes {
    chain(of, validity).to_bytes().into()
}

/// A disk that is full or is not, and what was written to it.
#[derive(Default)]
struct Disk {
    is_full: Mutex<bool>,
    written: Mutex<Vec<TrustNews>>,
}

impl Disk {
    fn write(&self, view: &SiteView) -> Result<(), KeepError> {
        if *self.is_full.lock().unwrap() {
            return Err(KeepError { why: "the disk is full".to_owned() });
        }
        self.written.lock().unwrap().push(view.news());
        Ok(())
    }
}

#[test]
fn a_node_shows_its_chain_and_another_one_once_it_is_renewed() {
    let handle = handle();
    let hello = TrustHello::from_bytes(&handle.hello().to_bytes().into()).unwrap();
    assert_eq!(hello.chain, chain(ROBOT, LIFE));
    assert_eq!(hello.news.root_version, 1);
    let later = Validity { until: SiteTime(9_000_000), ..LIFE };
    handle.renew(chain(ROBOT, later)).unwrap();
    assert_eq!(handle.clone().hello().chain, chain(ROBOT, later), "whoever shares it shows the same");
    assert_eq!(handle.own().unwrap().member.validity, later);
}

#[test]
fn a_renewed_chain_is_written_down_before_it_is_shown_and_shown_though_the_disk_is_full() {
    let (handle, written) = (handle(), Arc::<Mutex<Vec<Chain>>>::default());
    let (shown, disk) = (handle.clone(), Arc::clone(&written));
    handle.keep_own_with(move |chain| {
        let mut disk = disk.lock().unwrap();
        assert_ne!(shown.hello().chain, *chain, "it is shown before it is written");
        disk.push(chain.clone());
        let is_full = disk.len() > 1;
        if is_full { Err(KeepError { why: "the disk is full".to_owned() }) } else { Ok(()) }
    });
    let until = |ms| chain(ROBOT, Validity { until: SiteTime(ms), ..LIFE });
    handle.renew(until(9_000_000)).unwrap();
    assert!(handle.renew(until(9_500_000)).is_err());
    assert_eq!(*written.lock().unwrap(), [until(9_000_000), until(9_500_000)]);
    assert_eq!(handle.hello().chain, until(9_500_000));
}

#[test]
fn what_one_learns_all_judge_by_and_are_woken_for() {
    let handle = handle();
    let (plane, mut woken) = (handle.clone(), handle.changed());
    let member = plane.admit(&shown(OTHER, LIFE), key(OTHER)).unwrap().member;
    assert_eq!(plane.judge(&member), Ok(Standing::Fresh));
    assert!(!woken.has_changed().unwrap());
    let out = news(vec![revoked(Revoked::Key(key(OTHER)), OPERATOR)]);
    assert_eq!(handle.learn(&out), Ok(true));
    assert!(woken.has_changed().unwrap());
    woken.mark_unchanged();
    let refused = Refusal::Revoked { what: Revoked::Key(key(OTHER)) };
    assert_eq!(plane.judge(&member), Err(refused.clone()));
    assert_eq!(plane.admit(&shown(OTHER, LIFE), key(OTHER)), Err(refused));
    assert_eq!(handle.learn(&out), Ok(false), "it is no news");
    assert!(!woken.has_changed().unwrap());
}

#[test]
fn a_member_whose_issuer_is_dropped_is_cut_off_and_one_whose_issuer_stays_is_not() {
    let with = |document: RootDocument| {
        let handle = handle();
        let member = handle.admit(&shown(OTHER, LIFE), key(OTHER)).unwrap().member;
        let page = SiteNews { documents: vec![sealed(&document)], ..SiteNews::default() };
        assert_eq!(handle.learn(&page), Ok(true));
        handle.judge(&member)
    };
    assert_eq!(with(second()), Ok(Standing::Fresh));
    let dropped = Refusal::Chain(ChainError::UnknownIssuer { issuer: key(ISSUER) });
    assert_eq!(with(RootDocument { issuers: [].into(), ..second() }), Err(dropped));
    let epoch = RootDocument { epoch: 1, ..second() };
    assert_eq!(with(epoch), Err(Refusal::LowerEpoch { epoch: 0, epoch_min: 1 }));
}

#[test]
fn links_are_judged_anew_when_a_certificate_ends_and_when_the_clock_is_lost_or_found() {
    let handle = handle();
    let mut woken = handle.changed();
    let mut is_woken = || {
        let is_woken = woken.has_changed().unwrap();
        woken.mark_unchanged();
        is_woken
    };
    let member = handle.admit(&shown(OTHER, LIFE), key(OTHER)).unwrap().member;
    handle.heard_clock(LIFE.until);
    assert!(!is_woken(), "it holds up to its end");
    handle.doubt_clock();
    assert!(is_woken());
    assert_eq!(handle.judge(&member), Ok(Standing::Stale));
    handle.doubt_clock();
    assert!(!is_woken());
    handle.heard_clock(NOW);
    assert!(is_woken());
    assert_eq!(handle.clock(), SiteClock::Known(LIFE.until), "the clock of a site never falls");
    assert_eq!(handle.judge(&member), Ok(Standing::Fresh));
    handle.heard_clock(LIFE.until.plus_ms(1));
    assert!(is_woken());
    assert_eq!(handle.judge(&member), Err(Refusal::Expired { until: LIFE.until }));
    handle.heard_clock(LIFE.until.plus_ms(2));
    assert!(!is_woken(), "nobody is left whose certificate ends");
}

#[test]
fn what_does_not_hold_is_passed_over_and_what_is_behind_too_much_of_it_is_not_looked_at() {
    let lie = |n: u8| revoked(Revoked::Key(PublicKey::from_bytes([n; 32])), STRANGER);
    let truth = revoked(Revoked::Key(key(OTHER)), OPERATOR);
    let learned = |lies: usize| {
        let handle = handle();
        let told = (0..lies).map(|n| lie(n as u8)).chain([truth.clone()]).collect();
        let error = handle.learn(&news(told)).unwrap_err();
        assert_eq!(error, LearnError::Revocation(RevocationError::NotSealed));
        handle.view().revocations().len()
    };
    assert_eq!(learned(limits::SITE_NEWS_FAULTS_MAX - 1), 1);
    assert_eq!(learned(limits::SITE_NEWS_FAULTS_MAX), 0);
    // A document that follows none.
    let handle = handle();
    let later = RootDocument { version: 3, ..second() };
    let page = SiteNews { documents: vec![sealed(&later)], ..news(vec![truth]) };
    assert_eq!(handle.learn(&page), Err(LearnError::Root(RootError::NotNext { known: 1, found: 3 })));
    assert_eq!(handle.view().revocations().len(), 1, "the rest of it holds");
}

#[test]
fn what_is_learned_is_written_down_and_what_a_full_disk_refused_with_what_comes_next() {
    let (handle, disk) = (handle(), Arc::new(Disk::default()));
    let written_to = Arc::clone(&disk);
    handle.keep_with(move |view| written_to.write(view));
    let out = |n: u8| news(vec![revoked(Revoked::Key(key(n)), OPERATOR)]);
    handle.learn(&out(OTHER)).unwrap();
    handle.learn(&out(OTHER)).unwrap();
    assert_eq!(disk.written.lock().unwrap().len(), 1, "no news is not written");
    *disk.is_full.lock().unwrap() = true;
    assert!(matches!(handle.learn(&out(ROBOT)), Err(LearnError::NotKept(_))));
    assert!(matches!(handle.own(), Err(Refusal::Revoked { .. })), "whoever is revoked is out all the same");
    *disk.is_full.lock().unwrap() = false;
    assert_eq!(handle.learn(&SiteNews::default()), Ok(false));
    assert_eq!(disk.written.lock().unwrap().last(), Some(&handle.view().news()));
}

#[test]
fn two_nodes_tell_each_other_what_they_lack() {
    let (one, other) = (handle(), handle());
    one.learn(&SiteNews { documents: vec![sealed(&second())], ..SiteNews::default() }).unwrap();
    other.learn(&news(vec![revoked(Revoked::Key(key(OTHER)), OPERATOR)])).unwrap();
    let tell = |from: &SiteHandle, to: &SiteHandle| {
        let theirs = to.hello().news;
        let mut next = from.missing_of(&theirs);
        while let Some(page) = next {
            to.learn(&page).unwrap();
            next = from.missing_after(&theirs, &page);
        }
    };
    tell(&one, &other);
    tell(&other, &one);
    assert_eq!(one.hello().news, other.hello().news);
    assert_eq!(one.missing_of(&other.hello().news), None);
}
