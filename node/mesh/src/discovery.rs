//! Finding the listed peers: by each other's knowledge of addresses, and by multicast on the same network.
//!
//! An address that somebody tells is a hint. The handshake proves who is there, and nobody who is not listed is dialled.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use skep_protocol::text::SiteName;

use crate::service::MeshError;

/// Addresses taken from what one peer says of itself.
pub(crate) const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Peers that a lookup asks at a time.
const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
/// Peers that are known of each of the 256 distances, as in BitTorrent's table (BEP 5). Their places are made when a node starts, 176
/// bytes each, and of 20, which libp2p takes otherwise, an idle node had 0.9 MiB.
const PEERS_PER_DISTANCE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// Kademlia as Skep runs it: for the addresses of peers, and for nothing else.
pub(crate) type Dht = kad::Behaviour<MemoryStore>;

/// The name of the site's own Kademlia: another site's is not spoken with.
pub(crate) fn protocol(site: &SiteName) -> Result<StreamProtocol, MeshError> {
    StreamProtocol::try_from_owned(format!("/skep/{site}/kad/1")).map_err(|e| MeshError::new(&e))
}

/// Kademlia for a site.
pub(crate) fn dht(local: PeerId, site: &SiteName) -> Result<Dht, MeshError> {
    let mut config = kad::Config::new(protocol(site)?);
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // Only addresses that identify told, and that are usable from here.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_parallelism(PARALLELISM)
        .set_kbucket_size(PEERS_PER_DISTANCE)
        .set_periodic_bootstrap_interval(Some(Duration::from_secs(60)))
        // Several peers in turn, each over a slow link.
        .set_query_timeout(Duration::from_secs(30));
    let nothing =
        MemoryStoreConfig { max_records: 0, max_value_bytes: 0, max_provided_keys: 0, max_providers_per_key: 0 };
    let store = MemoryStore::with_config(local, nothing);
    let mut dht = kad::Behaviour::with_config(local, store, config);
    dht.set_mode(Some(kad::Mode::Server));
    Ok(dht)
}

/// Whether an address that a peer tells can mean that peer from here: a loopback address does so only among those who
/// listen on loopback themselves.
pub(crate) fn is_usable(address: &Multiaddr, on_loopback: bool) -> bool {
    address.iter().all(|part| match part {
        Protocol::Ip4(ip) => !ip.is_unspecified() && ip.is_loopback() == on_loopback,
        Protocol::Ip6(ip) => !ip.is_unspecified() && ip.is_loopback() == on_loopback,
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_usable_among_those_on_loopback_only() {
        let usable = |text: &str, on_loopback| is_usable(&text.parse().unwrap(), on_loopback);
        assert!(usable("/ip4/127.0.0.1/udp/1/quic-v1", true));
        assert!(!usable("/ip4/127.0.0.1/udp/1/quic-v1", false));
        assert!(usable("/ip4/10.0.0.1/tcp/1", false));
        assert!(!usable("/ip4/10.0.0.1/tcp/1", true));
        assert!(!usable("/ip4/0.0.0.0/tcp/1", false));
    }
}
