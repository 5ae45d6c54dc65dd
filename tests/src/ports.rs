//! Ports for nodes that a test starts by itself.

use std::net::{TcpListener, UdpSocket};

/// The first port. All lie below those of testnets, and below those that the system gives to programs.
const FIRST: u16 = 10_000;
/// How many ports there are.
const COUNT: u16 = 10_000;
/// How many times ports that are taken are passed over.
const TRIES: usize = 1_000;

/// The first of `count` ports in a row that are free for TCP and UDP, by chance: so that tests that run at the same
/// time, and whole runs of them, hardly choose the same.
///
/// # Panics
/// If none are found.
#[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
pub fn free_ports(count: u16) -> u16 {
    let is_free =
        |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let mut firsts = (0..TRIES).map(|_| FIRST + rand::random::<u16>() % (COUNT - count));
    firsts.find(|first| (*first..first + count).all(is_free)).expect("ports are free")
}
