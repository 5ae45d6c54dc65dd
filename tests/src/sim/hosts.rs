//! Sets of hosts.

use std::fmt;

/// The most hosts of a site: as many as have ids of their own, and no more than a set holds.
pub(super) const HOSTS_MAX: usize = 250;

const WORDS: usize = HOSTS_MAX.div_ceil(64);

/// A set of hosts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hosts([u64; WORDS]);

impl Hosts {
    /// The set of these hosts.
    pub(super) fn of(hosts: impl IntoIterator<Item = usize>) -> Self {
        let mut words = [0; WORDS];
        for host in hosts {
            if let Some(word) = words.get_mut(host / 64) {
                *word |= 1 << (host % 64);
            }
        }
        Self(words)
    }

    /// Whether a host is in the set.
    pub(super) fn has(self, host: usize) -> bool {
        self.0.get(host / 64).is_some_and(|word| word >> (host % 64) & 1 == 1)
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..HOSTS_MAX).filter(|host| self.has(*host))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_hosts_that_were_put_into_it_and_no_others() {
        let some = [0, 63, 64, 200, HOSTS_MAX - 1];
        let set = Hosts::of(some);
        assert!((0..2 * HOSTS_MAX).all(|host| set.has(host) == some.contains(&host)));
        assert_eq!(format!("{set:?}"), "{0, 63, 64, 200, 249}");
        assert_eq!(Hosts::of([]), Hosts::default());
    }
}
