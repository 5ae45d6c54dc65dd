//! The first bytes of a connection over TCP. Either a greeting, by which both sides show with
//! [proofs](skep_protocol::proof) that they know the token without telling it; or HTTP/2 at once, with the token in
//! each call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use skep_protocol::limits;
use skep_protocol::proof::{GREETING, Nonces, Proof, Side, proof, proves};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::doors::Guest;

/// The connections that say something in time, and show no false proof. None waits for another.
pub(crate) fn greeted<Io: AsyncRead + AsyncWrite + Unpin>(
    guests: impl Stream<Item = io::Result<Guest<Io>>>,
    token: Arc<str>,
) -> impl Stream<Item = io::Result<Guest<Io>>> {
    // As many as may be open without a token, and as many as the API tells that there is no place.
    let at_once = limits::API_TCP_STRANGERS_MAX + limits::API_REFUSALS_MAX + 1;
    guests
        .map(move |guest| {
            let token = Arc::clone(&token);
            async move {
                match guest {
                    Ok(guest) => in_time(guest, &token).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        })
        .buffer_unordered(at_once)
        .filter_map(std::future::ready)
}

async fn in_time<Io: AsyncRead + AsyncWrite + Unpin>(mut guest: Guest<Io>, token: &str) -> Option<Guest<Io>> {
    let within = Duration::from_millis(limits::API_TCP_LET_IN_MS);
    match tokio::time::timeout(within, greet(&mut guest, token)).await {
        Ok(Ok(())) => Some(guest),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection to the API over TCP ended during its greeting");
            None
        }
        Err(_) => None,
    }
}

async fn greet<Io: AsyncRead + AsyncWrite + Unpin>(guest: &mut Guest<Io>, token: &str) -> io::Result<()> {
    let mut first = [0; GREETING.len()];
    guest.read_exact(&mut first).await?;
    if first != GREETING {
        guest.unread(&first);
        return Ok(());
    }
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    let mut nonces = Nonces { client: [0; 32], node: rand::random() };
    guest.read_exact(&mut nonces.client).await?;
    let own = proof(token, Side::Node, &nonces).ok_or_else(refused)?;
    guest.write_all(&[nonces.node, own].concat()).await?;
    guest.flush().await?;
    let mut shown: Proof = [0; 32];
    guest.read_exact(&mut shown).await?;
    if !proves(&shown, token, Side::Client, &nonces) {
        return Err(refused());
    }
    guest.has_proved();
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tonic::transport::server::Connected as _;

    use super::*;
    use crate::doors::Doors;
    use crate::doors::tests::{Port, door};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    /// What the API makes of one connection, whose other end does this.
    async fn one<T>(does: impl AsyncFnOnce(DuplexStream) -> T) -> (Option<Guest<DuplexStream>>, T) {
        let (here, there) = tokio::io::duplex(1_024);
        let doors = Doors::new(1_000, true);
        let guests = doors.guests(Port(door([Ok(here)]))).take(1);
        let greeted = greeted(guests, Arc::from(TOKEN)).collect::<Vec<_>>();
        let (mut greeted, told) = tokio::join!(greeted, does(there));
        (greeted.pop().map(Result::unwrap), told)
    }

    /// The greeting, and the proof of a client that knows this token or another one.
    async fn prove(there: &mut DuplexStream, token: &str) -> bool {
        let mut nonces = Nonces { client: [7; 32], node: [0; 32] };
        there.write_all(&[&GREETING[..], &nonces.client].concat()).await.unwrap();
        there.read_exact(&mut nonces.node).await.unwrap();
        let mut shown: Proof = [0; 32];
        there.read_exact(&mut shown).await.unwrap();
        there.write_all(&proof(token, Side::Client, &nonces).unwrap()).await.unwrap();
        proves(&shown, TOKEN, Side::Node, &nonces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_knows_the_token_proves_it_without_telling_it_and_so_does_the_node() {
        let (guest, (node_proved, _there)) = one(async |mut there| (prove(&mut there, TOKEN).await, there)).await;
        assert!(node_proved && guest.unwrap().connect_info().is_proven());
        let (guest, _) = one(async |mut there| prove(&mut there, "another").await).await;
        assert!(guest.is_none(), "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_begins_with_http_2_is_heard_from_its_first_byte_and_has_proved_nothing() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let (guest, _there) = one(async |mut there| {
            there.write_all(preface).await.unwrap();
            there
        })
        .await;
        let mut guest = guest.unwrap();
        assert!(!guest.connect_info().is_proven());
        let mut heard = [0; 24];
        guest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, preface);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_keeps_nobody_waiting() {
        let (silent, _silent) = tokio::io::duplex(64);
        let (here, mut there) = tokio::io::duplex(1_024);
        let doors = Doors::new(1_000, true);
        let guests = doors.guests(Port(door([Ok(silent), Ok(here)])));
        let mut greeted = Box::pin(greeted(guests, Arc::from(TOKEN)));
        let begun = tokio::time::Instant::now();
        let (guest, _) = tokio::join!(greeted.next(), prove(&mut there, TOKEN));
        assert!(guest.unwrap().unwrap().connect_info().is_proven());
        assert_eq!(begun.elapsed(), Duration::ZERO, "of virtual time");
        let never: Vec<io::Result<Guest<DuplexStream>>> =
            greeted.take_until(tokio::time::sleep(Duration::from_secs(60))).collect().await;
        assert!(never.is_empty(), "the silent one is gone");
    }
}
