//! Connections to a port on which any program may listen.

use std::io;

use skep_protocol::proof::{GREETING, Nonces, Proof, Side, proof, proves};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// No program listens, or the connection ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The program that listens does not know the token: another program has the port, or the token belongs to another
    /// node.
    #[error("the program that listens at {0} does not prove that it knows the token")]
    Stranger(String),
}

/// Connects to the program that listens at an address, if that knows the token.
pub(crate) async fn connected(address: &str, token: &str) -> Result<TcpStream, ConnectFailure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    greet(&mut stream, address, token).await?;
    Ok(stream)
}

/// Makes the other side prove that it knows the token, and proves the same. Neither side tells the token.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    address: &str,
    token: &str,
) -> Result<(), ConnectFailure> {
    let stranger = || ConnectFailure::Stranger(address.to_owned());
    let mut nonces = Nonces { client: rand::random(), node: [0; 32] };
    let mut greeting = GREETING.to_vec();
    greeting.extend(nonces.client);
    stream.write_all(&greeting).await?;
    stream.flush().await?;
    let mut shown: Proof = [0; 32];
    stream.read_exact(&mut nonces.node).await?;
    stream.read_exact(&mut shown).await?;
    if !proves(&shown, token, Side::Node, &nonces) {
        return Err(stranger());
    }
    let own = proof(token, Side::Client, &nonces).ok_or_else(stranger)?;
    stream.write_all(&own).await?;
    stream.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn whoever_listens_without_the_token_is_told_neither_it_nor_what_shows_it() {
        let (mut here, mut there) = tokio::io::duplex(1_024);
        let listens = async {
            let mut said = vec![0; 40];
            there.read_exact(&mut said).await.unwrap();
            // The other side repeats the client's own words.
            there.write_all(&[&said[8..], &said[8..]].concat()).await.unwrap();
            let mut more = Vec::new();
            there.read_to_end(&mut more).await.unwrap();
            [said, more].concat()
        };
        let connects = async move { greet(&mut here, "127.0.0.1:7", TOKEN).await };
        let (told, ended) = tokio::join!(listens, connects);
        assert!(matches!(&ended, Err(ConnectFailure::Stranger(at)) if at == "127.0.0.1:7"), "{ended:?}");
        assert_eq!(told.len(), 40, "nothing after that");
        assert!(!told.windows(8).any(|part| part == &TOKEN.as_bytes()[..8]));
    }
}
