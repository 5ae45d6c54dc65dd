//! How often machines may try to join at this node.
//!
//! An attempt costs a signature and a question to the directory. Those that made a member are not counted, so that
//! hundreds of machines behind one address join one after another, and a machine that guesses codes is soon not heard.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::limits;
use tokio::time::Instant;

use super::doors::source;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Try {
    number: u64,
    begun: Instant,
    from: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    /// Those of the last minute, the earliest first.
    tries: VecDeque<Try>,
    /// How many there ever were.
    count: u64,
}

/// The attempts of the last minute. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Knocks(Arc<Mutex<State>>);

/// An attempt that is under way, or was in vain.
#[derive(Debug)]
pub(super) struct Attempt {
    knocks: Knocks,
    number: u64,
}

impl Knocks {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more attempt from there; none if there were too many.
    pub(super) fn attempt(&self, from: IpAddr) -> Option<Attempt> {
        let (from, mut state) = (source(from), self.state());
        while state.tries.front().is_some_and(|first| first.begun.elapsed() >= MINUTE) {
            state.tries.pop_front();
        }
        let of_source = state.tries.iter().filter(|other| other.from == from).count();
        if of_source >= limits::JOINS_PER_SOURCE_MINUTE_MAX || state.tries.len() >= limits::JOINS_PER_MINUTE_MAX {
            return None;
        }
        state.count += 1;
        let number = state.count;
        state.tries.push_back(Try { number, begun: Instant::now(), from });
        drop(state);
        Some(Attempt { knocks: self.clone(), number })
    }
}

impl Attempt {
    /// It made a member, and is not counted.
    pub(super) fn made_a_member(self) {
        self.knocks.state().tries.retain(|other| other.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_attempts_in_vain_are_few_that_are_heard_and_take_no_memory() {
        let knocks = Knocks::default();
        let heard = (0..10_000).filter_map(|n| knocks.attempt(v4(n))).count();
        assert_eq!((heard, knocks.state().tries.len()), (limits::JOINS_PER_MINUTE_MAX, limits::JOINS_PER_MINUTE_MAX));
        tokio::time::advance(MINUTE).await;
        assert!(knocks.attempt(v4(1)).is_some(), "the next minute is another one");
        assert_eq!(knocks.state().tries.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_few_attempts_and_leaves_others_theirs() {
        let knocks = Knocks::default();
        let heard = (0..100).filter_map(|_| knocks.attempt(v4(1))).count();
        assert_eq!(heard, limits::JOINS_PER_SOURCE_MINUTE_MAX);
        assert!(knocks.attempt(v4(2)).is_some());
        let network = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
        let heard = (0..100).filter_map(|n| knocks.attempt(network(n))).count();
        assert_eq!(heard, limits::JOINS_PER_SOURCE_MINUTE_MAX, "a network of IPv6 is one address");
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_made_members_are_not_counted() {
        let knocks = Knocks::default();
        (0..1_000).filter_map(|_| knocks.attempt(v4(1))).for_each(Attempt::made_a_member);
        assert!(knocks.state().tries.is_empty());
        let under_way: Vec<Attempt> = std::iter::from_fn(|| knocks.attempt(v4(1))).collect();
        assert_eq!(under_way.len(), limits::JOINS_PER_SOURCE_MINUTE_MAX, "those under way are");
    }
}
