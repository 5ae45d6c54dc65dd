//! How long a leader waits before it sends a snapshot again to a member that did not take it.

use std::time::Duration;

/// The wait after the first failed attempt. Each further failure doubles it, up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest wait for a member that is connected and does not take the snapshot, such as for want of room, or does
/// not answer in time: the leader is not told when that is over. See [`PAUSE_MIN`].
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest wait for a member that is not connected: the wait ends as soon as the member connects. See
/// [`PAUSE_MIN`].
const DOWN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How an attempt to send a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The member was not connected at the end.
    Down,
    /// The member was connected, and took nothing.
    Refused,
    /// The member took a part of the snapshot.
    Moved,
}

/// The pauses between attempts to send one member a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    last: Attempt,
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { last: Attempt::Moved, next: PAUSE_MIN }
    }
}

impl Pauses {
    /// The wait after an attempt. It is longer than the one before if both attempts failed in the same way.
    pub(super) fn after(&mut self, attempt: Attempt) -> Duration {
        let most = match attempt {
            Attempt::Down => DOWN_PAUSE_MAX,
            Attempt::Refused | Attempt::Moved => REFUSED_PAUSE_MAX,
        };
        if attempt == Attempt::Moved || attempt != self.last {
            self.next = PAUSE_MIN;
        }
        let pause = self.next;
        (self.last, self.next) = (attempt, (pause * 2).min(most));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_while_attempts_are_in_vain_in_the_same_way() {
        for (attempt, most) in [(Attempt::Down, DOWN_PAUSE_MAX), (Attempt::Refused, REFUSED_PAUSE_MAX)] {
            let mut pauses = Pauses::default();
            let waited: Vec<Duration> = (0..20).map(|_| pauses.after(attempt)).collect();
            assert_eq!(waited[..3], [PAUSE_MIN, 2 * PAUSE_MIN, 4 * PAUSE_MIN], "{attempt:?}");
            assert_eq!(waited[19], most, "{attempt:?}");
        }
    }

    #[test]
    fn a_member_that_took_a_part_or_came_back_is_not_waited_for_as_long_as_before() {
        let mut pauses = Pauses::default();
        (0..20).for_each(|_| _ = pauses.after(Attempt::Down));
        assert_eq!(pauses.after(Attempt::Refused), PAUSE_MIN);
        assert_eq!(pauses.after(Attempt::Refused), 2 * PAUSE_MIN);
        (0..20).for_each(|_| assert_eq!(pauses.after(Attempt::Moved), PAUSE_MIN));
    }
}
