//! Ports for nodes and relays. They keep theirs across restarts, so that all lie below those that the system gives to
//! any program.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// The first port.
const FIRST: u16 = 20_000;
/// How many ports there are.
const COUNT: u16 = 12_000;
/// How many taken ports are skipped before the search fails.
const TRIES: usize = 1_000;

/// Three ports in a row, held until the node that they are for is started.
pub(crate) struct Ports {
    pub(crate) start: u16,
    _held: Vec<(TcpListener, UdpSocket)>,
}

/// Finds a port that is free for UDP and TCP, and whose next two are free as well.
pub(crate) fn free_ports() -> io::Result<Ports> {
    let hold = |port| Some((TcpListener::bind(("127.0.0.1", port)).ok()?, UdpSocket::bind(("127.0.0.1", port)).ok()?));
    for _ in 0..TRIES {
        let start = FIRST + 3 * (rand::random::<u16>() % (COUNT / 3));
        if let Some(held) = (start..start + 3).map(hold).collect() {
            return Ok(Ports { start, _held: held });
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}

/// A socket on a port of this address that is free for UDP.
pub(crate) fn free_socket(address: Ipv4Addr) -> io::Result<UdpSocket> {
    for _ in 0..TRIES {
        if let Ok(socket) = UdpSocket::bind((address, FIRST + rand::random::<u16>() % COUNT)) {
            return Ok(socket);
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse))
}
