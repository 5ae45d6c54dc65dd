//! How a client and a node show each other that they know the token of the node's API, over a port that any program can
//! listen on and connect to. Neither tells the token, so that another program at the port learns nothing.
//!
//! The client sends [`GREETING`] and a nonce. The node answers with a nonce of its own and [its proof](Side::Node). If
//! that is right, the client sends [its own](Side::Client), and then both go on with HTTP/2, without a token in any
//! call.
//!
//! It shows that both know the token when the connection begins. It does not show a program that passes every byte on
//! between the two: that program can do what the client can while the connection lasts; it does not learn the token.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The first bytes that a client sends. HTTP/2 begins otherwise.
pub const GREETING: [u8; 8] = *b"SKEPAPI1";
/// Random bytes of each side, for one connection.
pub type Nonce = [u8; 32];
/// The proof that one side shows.
pub type Proof = [u8; 32];

/// The side whose proof it is: a proof of one side is none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The node.
    Node,
    /// The client.
    Client,
}

impl Side {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Node => b"skep/api/node/1\0",
            Self::Client => b"skep/api/client/1\0",
        }
    }
}

/// The nonces of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Nonces {
    /// The client's nonce.
    pub client: Nonce,
    /// The node's nonce.
    pub node: Nonce,
}

/// None only if the cryptographic library takes no key of that length, and it takes any.
fn mac(token: &str, side: Side, nonces: &Nonces) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).ok()?;
    mac.update(side.domain());
    mac.update(&nonces.client);
    mac.update(&nonces.node);
    Some(mac)
}

/// The proof that a side knows the token; none if the cryptographic library refuses it.
pub fn proof(token: &str, side: Side, nonces: &Nonces) -> Option<Proof> {
    Some(mac(token, side, nonces)?.finalize().into_bytes().into())
}

/// Whether this proof shows that a side knows the token. The check takes as long wherever the proof is wrong.
pub fn proves(given: &Proof, token: &str, side: Side, nonces: &Nonces) -> bool {
    mac(token, side, nonces).is_some_and(|mac| mac.verify_slice(given).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const NONCES: Nonces = Nonces { client: [1; 32], node: [2; 32] };

    #[test]
    fn only_who_knows_the_token_has_a_proof_for_his_side_of_this_connection() {
        let shown = proof(TOKEN, Side::Node, &NONCES).unwrap();
        assert!(proves(&shown, TOKEN, Side::Node, &NONCES));
        assert!(!proves(&shown, TOKEN, Side::Client, &NONCES), "it is not sent back as one's own");
        assert!(!proves(&shown, "another", Side::Node, &NONCES));
        for other in [Nonces { client: [3; 32], ..NONCES }, Nonces { node: [3; 32], ..NONCES }] {
            assert!(!proves(&shown, TOKEN, Side::Node, &other), "it is of another connection");
        }
        let mut wrong = shown;
        wrong[31] ^= 1;
        assert!(!proves(&wrong, TOKEN, Side::Node, &NONCES));
    }

    #[test]
    fn a_greeting_is_not_how_http_2_begins() {
        // RFC 9113, 3.4
        assert_ne!(GREETING, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..8]);
    }
}
