//! Where a node listens, and the error if it cannot.

use std::fmt::Display;
use std::net::SocketAddr;

/// The error of a part of the node that cannot listen. It names the part, the address, the protocol, the cause, and the
/// setting of the address.
pub fn cannot_listen(what: &str, address: &SocketAddr, over: &str, why: &dyn Display, setting: &str) -> String {
    format!(
        "{what} cannot listen on {address} over {over}: {why}. If another process listens there, stop it, or give {setting} \
         another port"
    )
}

/// Whether the node cannot listen on two addresses at once, over one protocol.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_listened_on_once() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let collide = |a, b| super::collide(at(a), at(b));
        assert!(collide("127.0.0.1:7", "127.0.0.1:7") && collide("0.0.0.0:7", "127.0.0.1:7"));
        assert!(!collide("127.0.0.1:7", "127.0.0.1:8") && !collide("127.0.0.1:7", "127.0.0.2:7"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"), "any free one");
    }
}
