//! Who is let in at a site: what two members say to each other before anything else, on the first stream of a
//! connection.
//!
//! The node that dialled shows its chain of certificates first, with the latest root documents, by which its chain may
//! be made. The node that was dialled says nothing before it has verified that chain: a stranger sees a connection that
//! is closed, and no byte. Then it shows its own. Both tell each other what the other one lacks of root documents and
//! revocations, and judge after that: a visitor carries a revocation into a half that is cut off.

use std::time::Duration;

use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_trust::{SiteNews, SiteView, TrustHello, TrustNews};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::calls::{begin_frame, frame, read_body};
use super::gate::{Gate, Pass, Turned};
use super::pace::Pace;

/// How long whoever dialled has to show its chain, from the handshake on.
pub(super) const TRUST_PATIENCE: Duration = Duration::from_secs(2);
/// How long anything after that may take, beside the time for its bytes: what is read, and what is written.
const NEWS_PATIENCE: Duration = Duration::from_secs(10);

/// The longest wait for so many bytes.
fn patience(bytes: usize) -> Duration {
    Pace::default().patience(NEWS_PATIENCE, Duration::ZERO, bytes)
}

/// The body of the next frame, which must be of this kind, and of no more bytes.
pub(super) async fn read(
    receive: &mut (impl AsyncRead + Unpin),
    kind: FrameKind,
    bytes_max: usize,
) -> Result<bytes::Bytes, Turned> {
    let begun = begin_frame(receive).await.map_err(Turned::Lost)?;
    let begun = begun.ok_or_else(|| Turned::Lost("it said nothing".to_owned()))?;
    let header: Header = begun.header(receive).await.map_err(Turned::Malformed)?;
    if header.kind != kind || header.body_bytes as usize > bytes_max {
        return Err(Turned::Malformed(format!("it says {:?} where {kind:?} is due", header.kind)));
    }
    read_body(receive, &header).await.map_err(Turned::Lost)
}

async fn read_hello(receive: &mut (impl AsyncRead + Unpin)) -> Result<TrustHello, Turned> {
    let body = read(receive, FrameKind::Trust, limits::TRUST_HELLO_BYTES_MAX).await?;
    TrustHello::from_bytes(&body).map_err(|error| Turned::Malformed(error.to_string()))
}

async fn read_news(receive: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> Result<SiteNews, Turned> {
    let body = read(receive, FrameKind::SiteNews, bytes_max).await?;
    SiteNews::from_bytes(&body).map_err(|error| Turned::Malformed(error.to_string()))
}

fn hello_frame(hello: &TrustHello) -> Vec<u8> {
    frame(FrameKind::Trust, ShardId(0), None, 0, &hello.to_bytes())
}

fn news_frame(news: &SiteNews) -> Vec<u8> {
    frame(FrameKind::SiteNews, ShardId(0), None, 0, &news.to_bytes())
}

pub(super) async fn write(send: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Turned> {
    let patience = patience(bytes.len());
    let written = timeout(patience, send.write_all(bytes)).await.map_err(|_| Turned::Late(patience))?;
    written.map_err(|error| Turned::Lost(error.to_string()))
}

/// The latest root documents, as many as a node reads of somebody whom it does not know. There are none before the
/// second version: each member has the first one.
fn latest_documents(view: &SiteView) -> SiteNews {
    let mut news = SiteNews::default();
    let documents: Vec<_> = view.documents_after(1).collect();
    for document in documents.into_iter().rev() {
        news.documents.insert(0, document.clone());
        if news.to_bytes().len() > limits::FIRST_NEWS_BYTES_MAX {
            news.documents.remove(0);
            break;
        }
    }
    news
}

/// Tells a peer what it lacks, page by page. The last page says that it is the last.
async fn tell(gate: &Gate, theirs: &TrustNews, send: &mut (impl AsyncWrite + Unpin)) -> Result<(), Turned> {
    let mut page = gate.site.missing_of(theirs).unwrap_or_default();
    loop {
        write(send, &news_frame(&page)).await?;
        if !page.more {
            return Ok(());
        }
        page = gate.site.missing_after(theirs, &page).unwrap_or_default();
    }
}

/// Hears what a peer tells, to its last page.
async fn hear(gate: &Gate, receive: &mut (impl AsyncRead + Unpin)) -> Result<(), Turned> {
    let most = patience(limits::SITE_NEWS_BYTES_MAX);
    for _ in 0..limits::SITE_NEWS_PAGES_MAX {
        let read = timeout(most, read_news(receive, limits::SITE_NEWS_BYTES_MAX)).await;
        let page = read.map_err(|_| Turned::Late(most))??;
        let more = page.more;
        gate.learn(page).await;
        if !more {
            return Ok(());
        }
    }
    Err(Turned::Malformed("its news have no end".to_owned()))
}

/// The side that dialled: shows who this node is, and judges who was dialled.
///
/// # Errors
/// [`Turned`] says why the connection is of no use.
pub(super) async fn show<S: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
    gate: &Gate,
    peer: NodeId,
    (send, receive): (&mut S, &mut R),
) -> Result<Pass, Turned> {
    let ours = gate.site.hello();
    let first = [hello_frame(&ours), news_frame(&latest_documents(&gate.site.view()))].concat();
    write(send, &first).await?;
    let theirs = timeout(NEWS_PATIENCE, read_hello(receive)).await.map_err(|_| Turned::Late(NEWS_PATIENCE))??;
    hear(gate, receive).await?;
    // Somebody who is no member is told nothing of who is out.
    let admitted = gate.admit(&theirs, peer).await?;
    let told = gate.site.hello().news;
    tell(gate, &theirs.news, send).await?;
    Ok(Pass::new(admitted, told))
}

/// What a node that was dialled hears first, from somebody of whom it knows the key.
async fn identify(gate: &Gate, peer: NodeId, receive: &mut (impl AsyncRead + Unpin)) -> Result<TrustHello, Turned> {
    let theirs = read_hello(receive).await?;
    let latest = read_news(receive, limits::FIRST_NEWS_BYTES_MAX).await?;
    if theirs.news.root_version > gate.site.hello().news.root_version {
        gate.learn(SiteNews { documents: latest.documents, ..SiteNews::default() }).await;
    }
    gate.admit(&theirs, peer).await?;
    Ok(theirs)
}

/// The side that was dialled: judges who dialled, until an instant, and only then says who it is itself.
///
/// # Errors
/// [`Turned`] says why the connection is to be closed. Nothing was said to somebody who was refused, unless what it told
/// itself made it one.
pub(super) async fn meet<S: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
    gate: &Gate,
    peer: NodeId,
    (send, receive): (&mut S, &mut R),
    until: Instant,
) -> Result<Pass, Turned> {
    let identified = timeout_at(until, identify(gate, peer, receive)).await;
    let theirs = identified.map_err(|_| Turned::Late(TRUST_PATIENCE))??;
    let ours = gate.site.hello();
    write(send, &hello_frame(&ours)).await?;
    tell(gate, &theirs.news, send).await?;
    hear(gate, receive).await?;
    Ok(Pass::new(gate.admit(&theirs, peer).await?, ours.news))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skep_admission::SiteHandle;
    use skep_trust::{Certificate, Chain, PublicKey, Refusal, Revoked, Role, SiteId, SiteTime, Validity};
    use tokio::io::{AsyncReadExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};

    use super::super::hall::{
        self, ISSUER, ROOT, certificate, chain, gate, hello, key, member, node, out, second, shows,
    };
    use super::*;

    /// More than anybody says.
    const LOTS: usize = 8 * 1024 * 1024;
    const AT_ONCE: Duration = Duration::ZERO;

    async fn pump(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, takes: Duration) {
        let mut some = vec![0; 64 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut some).await {
            tokio::time::sleep(takes).await;
            if to.write_all(&some[..bytes]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    /// The ends of a way that takes so long there and back.
    fn way(round_trip: Duration) -> (DuplexStream, DuplexStream) {
        let ((one, near), (far, other)) = (duplex(LOTS), duplex(LOTS));
        let ((from_one, to_one), (from_other, to_other)) = (split(near), split(far));
        tokio::spawn(pump(from_one, to_other, round_trip / 2));
        tokio::spawn(pump(from_other, to_one, round_trip / 2));
        (one, other)
    }

    async fn dials(site: SiteHandle, to: NodeId, stream: DuplexStream) -> Result<Pass, Turned> {
        let (mut receive, mut send) = split(stream);
        show(&gate(&site), to, (&mut send, &mut receive)).await
    }

    async fn is_dialled(site: SiteHandle, by: NodeId, stream: DuplexStream) -> Result<Pass, Turned> {
        let (mut receive, mut send) = split(stream);
        meet(&gate(&site), by, (&mut send, &mut receive), Instant::now() + TRUST_PATIENCE).await
    }

    /// The first of two nodes dials the second.
    async fn both(one: &SiteHandle, two: &SiteHandle, trip: Duration) -> (Result<Pass, Turned>, Result<Pass, Turned>) {
        let (dialler, dialled) = way(trip);
        let (of_one, of_two) = (one.key().node(), two.key().node());
        tokio::join!(dials(one.clone(), of_two, dialler), is_dialled(two.clone(), of_one, dialled))
    }

    fn kind(turned: &Result<Pass, Turned>) -> Option<&'static str> {
        turned.as_ref().err().and_then(Turned::kind)
    }

    /// Whether a node lets somebody in.
    fn lets_in(site: &SiteHandle, of: NodeId) -> Result<(), Refusal> {
        let shown = Bytes::from(chain(&certificate(of, &[Role::Robot]), ROOT).to_bytes());
        site.admit(&shown, PublicKey::from(of)).map(|_| ())
    }

    #[tokio::test(start_paused = true)]
    async fn two_members_let_each_other_in_and_know_what_each_is() {
        let (one, two) = (member(node(1), &[Role::Robot]), member(node(2), &[Role::Voter]));
        let (of_two, of_one) = both(&one, &two, AT_ONCE).await;
        let (of_two, of_one) = (of_two.unwrap(), of_one.unwrap());
        assert!(of_two.member().is(Role::Voter) && of_one.member().is(Role::Robot));
        assert_eq!((of_one.member().key, of_two.member().key), (key(1), key(2)));
    }

    /// What a node says to somebody who says this first and nothing more, and why it turned that one away.
    async fn answer(site: &SiteHandle, by: NodeId, said: &[u8]) -> (Vec<u8>, &'static str) {
        let (mut stranger, dialled) = duplex(LOTS);
        stranger.write_all(said).await.unwrap();
        let turned = is_dialled(site.clone(), by, dialled).await;
        let mut heard = Vec::new();
        stranger.read_to_end(&mut heard).await.unwrap();
        (heard, kind(&turned).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_belong_to_the_site_hears_no_byte() {
        let site = member(node(2), &[Role::Voter]);
        site.learn(&out(&[node(7)])).unwrap();
        let stranger = node(66);
        let of = |n| certificate(node(n), &[Role::Robot]);
        let good = |n| chain(&of(n), ROOT);
        let over = Validity { from: SiteTime(0), until: SiteTime(hall::NOW.0 - 1) };
        let cases: [(Chain, NodeId, &str); 8] = [
            (chain(&Certificate { issuer: Some(key(66)), ..of(66) }, 66), stranger, "self-made"),
            (chain(&of(66), 66), stranger, "not-sealed"),
            (chain(&Certificate { issuer: Some(key(ISSUER)), ..of(66) }, ISSUER), stranger, "unknown-issuer"),
            (good(1), stranger, "wrong-key"),
            (chain(&Certificate { site: SiteId::from_bytes([1; 32]), ..of(1) }, ROOT), node(1), "other-site"),
            (chain(&Certificate { validity: over, ..of(1) }, ROOT), node(1), "expired"),
            (chain(&Certificate { epoch: 2, ..of(1) }, ROOT), node(1), "lower-epoch"),
            (good(7), node(7), "revoked"),
        ];
        for (shown, by, why) in cases {
            let said = [hello_frame(&hello(shown)), news_frame(&SiteNews::default())].concat();
            assert_eq!(answer(&site, by, &said).await, (Vec::new(), why));
        }
        let news = frame(FrameKind::SiteNews, ShardId(0), None, 0, &vec![0; limits::FIRST_NEWS_BYTES_MAX + 1]);
        let too_much = [hello_frame(&hello(good(1))), news].concat();
        let early = frame(FrameKind::Hello, ShardId(0), None, 0, b"hello");
        let raft = frame(FrameKind::Append, ShardId::FIRST, None, 1, &[0; 64]);
        for said in [too_much, early, raft, vec![7; 1_000]] {
            assert_eq!(answer(&site, node(1), &said).await, (Vec::new(), "malformed"));
        }
        let first = hello_frame(&hello(good(1)));
        let late: [&[u8]; 3] = [&[], &first[..1], &first];
        for said in late {
            assert_eq!(answer(&site, node(1), said).await, (Vec::new(), "late"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_dialled_and_does_not_belong_to_the_site_is_not_spoken_with() {
        let good = member(node(1), &[Role::Robot]);
        let stranger = shows(node(66), chain(&certificate(node(66), &[Role::Voter]), 66));
        let (turned, _) = both(&good, &stranger, AT_ONCE).await;
        assert_eq!(kind(&turned), Some("not-sealed"));
        let (revoked, known) = (member(node(7), &[Role::Voter]), out(&[node(7)]));
        good.learn(&known).unwrap();
        let (turned, _) = both(&good, &revoked, AT_ONCE).await;
        assert_eq!(kind(&turned), Some("revoked"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_carries_a_revocation_into_a_half_that_is_cut_off_and_takes_one_from_there() {
        let (visitor, half) = (member(node(1), &[Role::Robot]), member(node(2), &[Role::Voter]));
        visitor.learn(&out(&[node(7)])).unwrap();
        half.learn(&out(&[node(8)])).unwrap();
        assert!(lets_in(&half, node(7)).is_ok() && lets_in(&visitor, node(8)).is_ok());
        let (of_half, of_visitor) = both(&visitor, &half, AT_ONCE).await;
        assert!(of_half.is_ok() && of_visitor.is_ok());
        for site in [&visitor, &half] {
            for gone in [7, 8] {
                let is_out = Err(Refusal::Revoked { what: Revoked::Key(key(gone)) });
                assert_eq!(lets_in(site, node(gone)), is_out);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_is_judged_by_what_it_tells_itself() {
        let (gone, site) = (member(node(7), &[Role::Voter]), member(node(2), &[Role::Voter]));
        gone.learn(&out(&[node(7)])).unwrap();
        let (_, turned) = both(&gone, &site, AT_ONCE).await;
        assert_eq!(kind(&turned), Some("revoked"));
    }

    #[tokio::test(start_paused = true)]
    async fn two_nodes_that_learn_something_before_each_hello_know_the_same_after_each() {
        let (one, two) = (member(node(1), &[Role::Voter]), member(node(2), &[Role::Voter]));
        for round in 0..4 {
            one.learn(&out(&[node(10 + round)])).unwrap();
            two.learn(&out(&[node(20 + round)])).unwrap();
            let (dialler, dialled) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
            let (of_dialled, of_dialler) = both(dialler, dialled, AT_ONCE).await;
            assert!(of_dialled.is_ok() && of_dialler.is_ok(), "round {round}");
            assert_eq!(one.view().news(), two.view().news(), "round {round}");
        }
        assert_eq!(one.view().news().revocations, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_of_a_later_root_document_is_let_in_by_a_node_that_has_an_earlier_one() {
        let new = Certificate { issuer: Some(key(ISSUER)), ..certificate(node(1), &[Role::Robot]) };
        let (new, old) = (shows(node(1), chain(&new, ISSUER)), member(node(2), &[Role::Voter]));
        let documents = vec![second()];
        new.learn(&SiteNews { documents, ..SiteNews::default() }).unwrap();
        let (of_old, of_new) = both(&new, &old, AT_ONCE).await;
        assert!(of_old.is_ok() && of_new.is_ok());
        assert_eq!(old.view().root().document().version, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_trip_of_300_ms_and_news_of_several_pages_end_nothing() {
        let (one, two) = (member(node(1), &[Role::Voter]), member(node(2), &[Role::Voter]));
        let gone: Vec<NodeId> = (0..limits::REVOCATIONS_PER_REPLY_MAX + 50)
            .map(|n| {
                let mut key = [1; 32];
                key[..8].copy_from_slice(&n.to_be_bytes());
                NodeId::from_public_key(key)
            })
            .collect();
        two.learn(&out(&gone)).unwrap();
        let (of_two, of_one) = both(&one, &two, Duration::from_millis(300)).await;
        assert!(of_two.is_ok() && of_one.is_ok());
        assert_eq!(one.view().news(), two.view().news());
    }
}
