//! Where a member may be. Hints, all of them: what counts is the key that is met there.

use std::net::SocketAddr;

use skep_protocol::limits;

/// The addresses of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    configured: Option<SocketAddr>,
    /// Where it was met, the last time at the end.
    met: Vec<SocketAddr>,
    /// Where others say that it is, the latest word at the end.
    said: Vec<SocketAddr>,
}

/// Puts an address at the end of a list that stays short. Whether it is new there.
fn push(list: &mut Vec<SocketAddr>, at: SocketAddr) -> bool {
    let before = list.len();
    list.retain(|known| *known != at);
    let is_new = list.len() == before;
    if list.len() >= limits::ADDRESSES_PER_MEMBER_MAX {
        list.remove(0);
    }
    list.push(at);
    is_new
}

impl Places {
    pub(super) fn configured(at: Option<SocketAddr>) -> Self {
        Self { configured: at, ..Self::default() }
    }

    /// It was met there.
    pub(super) fn met(&mut self, at: SocketAddr) {
        push(&mut self.met, at);
    }

    /// Somebody says that it is there. Whether that is news. No such word displaces what is configured, or where it was
    /// met.
    pub(super) fn said(&mut self, at: SocketAddr) -> bool {
        !self.all().any(|known| known == at) && push(&mut self.said, at)
    }

    /// Where it was met last.
    pub(super) fn last_met(&self) -> Option<SocketAddr> {
        self.met.last().copied()
    }

    /// Whether an operator said where it is.
    pub(super) fn is_configured(&self) -> bool {
        self.configured.is_some()
    }

    /// All of them, the most likely one first.
    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.met.iter().rev().chain(&self.configured).chain(self.said.iter().rev()).copied()
    }

    /// Where to try next, after so many tries; none if nobody knows where it is.
    pub(super) fn next(&self, tries: usize) -> Option<SocketAddr> {
        let count = self.all().count();
        self.all().nth(tries.checked_rem(count)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_member_is_looked_for_where_it_was_met_then_where_it_is_configured_then_where_others_say() {
        let mut places = Places::configured(Some(at(1)));
        assert!(places.said(at(2)) && !places.said(at(2)) && !places.said(at(1)));
        places.met(at(3));
        let tried: Vec<SocketAddr> = (0..6).filter_map(|tries| places.next(tries)).collect();
        assert_eq!(tried, [at(3), at(1), at(2), at(3), at(1), at(2)]);
        assert_eq!(Places::default().next(7), None);
    }

    #[test]
    fn what_others_say_displaces_neither_what_is_configured_nor_where_it_was_met() {
        let mut places = Places::configured(Some(at(1)));
        places.met(at(2));
        for port in 100..1_000 {
            places.said(at(port));
        }
        let count = 2 + limits::ADDRESSES_PER_MEMBER_MAX;
        let tried: Vec<SocketAddr> = (0..count).filter_map(|tries| places.next(tries)).collect();
        assert_eq!(tried[..3], [at(2), at(1), at(999)]);
        assert_eq!(places.next(count), Some(at(2)), "there are no more");
    }
}
