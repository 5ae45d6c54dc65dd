//! Addresses of meshes, as libp2p writes them.

use std::net::{IpAddr, SocketAddr};

/// The address of a mesh as a multiaddress.
pub(super) fn multiaddress(at: SocketAddr) -> String {
    let kind = if at.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{kind}/{}/udp/{}/quic-v1", at.ip(), at.port())
}

/// The address in a multiaddress of QUIC; none in one of another kind.
pub(super) fn address(multiaddress: &str) -> Option<SocketAddr> {
    let mut parts = multiaddress.strip_prefix('/')?.split('/');
    let (kind, ip, udp) = (parts.next()?, parts.next()?, parts.next()?);
    let port = parts.next()?.parse().ok()?;
    let ip: IpAddr = ip.parse().ok()?;
    (matches!(kind, "ip4" | "ip6") && udp == "udp").then_some(SocketAddr::new(ip, port))
}
