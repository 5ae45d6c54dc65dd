//! What both ends say to each other, over a stream in memory.

use std::sync::atomic::Ordering;
use std::time::Duration;

use skep_admission::SiteHandle;
use skep_trust::{PublicKey, Revoked, SiteNews};
use tokio::time::Instant;

use super::hall::*;
use super::pipe::{Pipe, pipe};
use crate::admit::refusals::NotAdmitted;
use crate::admit::talk::Talk;

const AT_ONCE: Duration = Duration::ZERO;

/// How one end of the talk ended: the peer that it admitted, or the kind of refusal.
type End = Result<PublicKey, &'static str>;

async fn dial(stream: Pipe, site: SiteHandle, peer: PublicKey) -> Result<PublicKey, NotAdmitted> {
    let judged = Talk::new(stream, site, peer).show().await?;
    let member = judged.member().key;
    judged.conclude().await.map(|()| member)
}

async fn accept(stream: Pipe, site: SiteHandle, peer: PublicKey) -> Result<PublicKey, NotAdmitted> {
    let judged = Talk::new(stream, site, peer).hear().await?.answer().await?;
    let member = judged.member().key;
    judged.conclude().await.map(|()| member)
}

/// How the talk ended for dialler and acceptor, and how many bytes the acceptor sent. The number beside the dialler's
/// site is the node with whose key it authenticated.
async fn talk(dialler: (&SiteHandle, u8), acceptor: &SiteHandle, delay: Duration) -> (End, End, usize) {
    let (near, far) = pipe(delay);
    let sent = far.written();
    let (handle, authenticated) = dialler;
    let dials = dial(near, handle.clone(), acceptor.key());
    let (dialled, accepted) = tokio::join!(dials, accept(far, acceptor.clone(), key(authenticated)));
    let kind = |why: NotAdmitted| why.kind();
    (dialled.map_err(kind), accepted.map_err(kind), sent.load(Ordering::Relaxed))
}

#[tokio::test]
async fn two_members_admit_each_other() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let (dialled, accepted, _) = talk((&a, 30), &b, AT_ONCE).await;
    assert_eq!((dialled, accepted), (Ok(key(31)), Ok(key(30))));
}

#[tokio::test]
async fn who_does_not_show_a_chain_that_holds_is_refused_and_told_not_a_byte() {
    let acceptor = robot(31).handle();
    acceptor.learn(&stolen(33)).unwrap();
    let shown = [
        ("self-made", Shows { issuer: 66, ..robot(66) }, 66),
        ("unknown-issuer", Shows { issuer: 67, ..robot(66) }, 66),
        ("wrong-key", robot(30), 66),
        ("other-site", Shows { nonce: OTHER_HALL, ..robot(30) }, 30),
        ("expired", Shows { validity: OVER, ..robot(30) }, 30),
        ("lower-epoch", Shows { epoch: 2, ..robot(30) }, 30),
        ("revoked", robot(33), 33),
    ];
    for (kind, shows, authenticated) in shown {
        let (dialled, accepted, sent) = talk((&shows.handle(), authenticated), &acceptor, AT_ONCE).await;
        assert_eq!((dialled, accepted, sent), (Err("ended"), Err(kind), 0));
    }
}

#[tokio::test]
async fn a_dialler_judges_whom_it_reached() {
    let dialler = robot(30).handle();
    dialler.learn(&stolen(31)).unwrap();
    for (kind, shows) in [("expired", Shows { validity: OVER, ..robot(32) }), ("revoked", robot(31))] {
        let (dialled, accepted, _) = talk((&dialler, 30), &shows.handle(), AT_ONCE).await;
        assert_eq!((dialled, accepted), (Err(kind), Err("ended")));
    }
}

#[tokio::test]
async fn what_one_knows_of_who_is_out_the_other_one_learns_before_it_judges() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    a.learn(&stolen(32)).unwrap();
    b.learn(&stolen(33)).unwrap();
    let (dialled, accepted, _) = talk((&a, 30), &b, AT_ONCE).await;
    assert_eq!((dialled, accepted), (Ok(key(31)), Ok(key(30))));
    assert_eq!(a.hello().news, b.hello().news);
    assert_eq!(a.view().revocations().len(), 2);
    // The dialler's news revoke the dialler itself.
    a.learn(&stolen(30)).unwrap();
    let (dialled, accepted, _) = talk((&a, 30), &b, AT_ONCE).await;
    assert_eq!((dialled, accepted), (Err("ended"), Err("revoked")));
}

#[tokio::test]
async fn a_member_under_a_later_root_document_shows_that_one_to_who_lacks_it() {
    let (earlier, later) = (robot(30).handle(), Shows { issuer: LATER_ISSUER, ..robot(31) }.handle());
    later.learn(&SiteNews { documents: vec![second()], ..SiteNews::default() }).unwrap();
    for dials in [true, false] {
        let earlier = if dials { robot(30).handle() } else { earlier.clone() };
        let ends = if dials {
            talk((&later, 31), &earlier, AT_ONCE).await
        } else {
            talk((&earlier, 30), &later, AT_ONCE).await
        };
        let both = if dials { (Ok(key(30)), Ok(key(31))) } else { (Ok(key(31)), Ok(key(30))) };
        assert_eq!((ends.0, ends.1), both);
        assert_eq!(earlier.hello().news.root_version, 2);
    }
}

#[tokio::test]
async fn more_revocations_than_a_page_holds_are_told_in_several() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    let serial = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        revoked(Revoked::Serial(skep_trust::Serial::from_bytes(bytes))).revocations
    };
    let revocations = (0..1_500).flat_map(serial).collect();
    a.learn(&SiteNews { revocations, ..SiteNews::default() }).unwrap();
    for (dialler, of, acceptor) in [(&a, 30, &b), (&robot(32).handle(), 32, &a)] {
        let (dialled, accepted, _) = talk((dialler, of), acceptor, AT_ONCE).await;
        assert_eq!((dialled.is_ok(), accepted.is_ok()), (true, true));
        assert_eq!(dialler.hello().news, acceptor.hello().news);
        assert_eq!(dialler.view().revocations().len(), 1_500);
    }
}

#[tokio::test(start_paused = true)]
async fn members_admit_each_other_over_round_trips_of_300_ms_long_before_strangers_have_to_go() {
    let (a, b) = (robot(30).handle(), robot(31).handle());
    a.learn(&stolen(32)).unwrap();
    let begun = Instant::now();
    let (dialled, accepted, _) = talk((&a, 30), &b, Duration::from_millis(150)).await;
    assert_eq!((dialled, accepted), (Ok(key(31)), Ok(key(30))));
    // Four times the delay: hello, hello, and each side says that it listens. The clock is the test's.
    assert_eq!(begun.elapsed().as_millis() / 10, 60);
}

#[tokio::test]
async fn rubbish_is_refused_and_told_not_a_byte() {
    use futures::AsyncWriteExt as _;
    let huge = [u32::MAX.to_be_bytes().to_vec(), vec![7; 100]].concat();
    let wrong = [5_u32.to_be_bytes().to_vec(), vec![255; 5], vec![0; 4]].concat();
    for rubbish in [vec![], vec![0; 4], vec![1; 3], huge, wrong] {
        let (mut near, far) = pipe(AT_ONCE);
        let sent = far.written();
        let accepts = tokio::spawn(accept(far, robot(31).handle(), key(66)));
        near.write_all(&rubbish).await.unwrap();
        drop(near);
        assert!(accepts.await.unwrap().is_err(), "{rubbish:?}");
        assert_eq!(sent.load(Ordering::Relaxed), 0, "{rubbish:?}");
    }
}
