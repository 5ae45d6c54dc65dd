//! A node's id and libp2p's name for the node: both are its public key.

use libp2p::PeerId;
use libp2p::identity::{PublicKey, ed25519};
use skep_protocol::ids::NodeId;

/// The peer id of a node; none if its id is no ed25519 key.
pub(crate) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.public_key()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node of a peer id; none if its key is of another kind.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn node_id_text_is_libp2p_peer_id_text() {
        // This is RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let seed: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&seed[2 * i..2 * i + 2], 16).unwrap()).collect();
        let key = Keypair::ed25519_from_bytes(seed).unwrap();
        let peer = key.public().to_peer_id();
        let node = node_id(&peer).unwrap();
        assert_eq!(node.to_string(), "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV");
        assert_eq!(node.to_string(), peer.to_base58());
        assert_eq!(peer_id(node), Some(peer));
    }
}
