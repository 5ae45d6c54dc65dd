//! Waits for commands to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::FleetState;
use skep_protocol::change::Change;
use skep_protocol::ids::CommandId;
use skep_protocol::limits;
use tokio::sync::Notify;

/// The callers that wait for the end of each command. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ends(Arc<Mutex<BTreeMap<CommandId, Waiting>>>);

#[derive(Default)]
struct Waiting {
    notify: Arc<Notify>,
    waiters: usize,
}

/// A place among the callers that wait for a command. Dropping it ends the wait.
pub(crate) struct EndWaiter {
    ends: Ends,
    command: CommandId,
    notify: Arc<Notify>,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<CommandId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller that waits for a command; none if too many wait.
    pub(crate) fn wait_for(&self, command: CommandId) -> Option<EndWaiter> {
        let mut waiting = self.lock();
        if waiting.values().map(|known| known.waiters).sum::<usize>() >= limits::COMMAND_WAITS_MAX {
            return None;
        }
        let known = waiting.entry(command).or_default();
        known.waiters += 1;
        Some(EndWaiter { ends: self.clone(), command, notify: Arc::clone(&known.notify) })
    }

    /// Of the commands that callers wait for, those of which these changes ended the last delivery.
    pub(crate) fn of(&self, changes: &[Change], state: &FleetState) -> BTreeSet<CommandId> {
        let waiting = self.lock();
        if waiting.is_empty() {
            return BTreeSet::new();
        }
        let ended = changes.iter().filter_map(|change| change.what.ended_command());
        ended.filter(|id| waiting.contains_key(id) && !state.is_command_open(id)).collect()
    }

    /// Wakes the callers that wait for these commands. To be called once they can read the state.
    pub(crate) fn tell(&self, ended: &BTreeSet<CommandId>) {
        if ended.is_empty() {
            return;
        }
        let waiting = self.lock();
        for known in ended.iter().filter_map(|command| waiting.get(command)) {
            known.notify.notify_waiters();
        }
    }
}

impl EndWaiter {
    /// Completes when the command next ends. A caller that begins this before it looks at the state misses no end.
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for EndWaiter {
    fn drop(&mut self) {
        let mut waiting = self.ends.lock();
        let Some(known) = waiting.get_mut(&self.command) else { return };
        known.waiters -= 1;
        if known.waiters == 0 {
            waiting.remove(&self.command);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use skep_fleet::FleetLimits;
    use skep_protocol::change::ChangeKind;
    use skep_protocol::command::{CommandChange, CommandOutcome, Steps};
    use skep_protocol::time::LogInstant;

    use super::*;

    fn id(n: u8) -> CommandId {
        CommandId::from_bytes([n; 16])
    }

    fn end(n: u8) -> Change {
        let (trace, outcome) = (Default::default(), CommandOutcome::Expired);
        let (agent, steps) = ("r1".parse().unwrap(), Steps::default());
        let what = ChangeKind::Command {
            command: id(n),
            change: CommandChange::DeliveryEnded { trace, agent, outcome, seq: None, node: None, steps },
        };
        Change { at: LogInstant::ZERO, request: None, what }
    }

    #[test]
    fn an_end_wakes_those_who_wait_for_it_and_nobody_else() {
        let (ends, state) = (Ends::default(), FleetState::new(FleetLimits::default()));
        let waiters = [1, 1, 2].map(|n| ends.wait_for(id(n)).unwrap());
        let next = waiters.each_ref().map(EndWaiter::next);
        let ended = ends.of(&[end(1), end(3)], &state);
        assert_eq!(ended, [id(1)].into(), "no caller waits for the other");
        ends.tell(&ended);
        assert_eq!(next.map(|next| next.now_or_never().is_some()), [true, true, false]);
        drop(waiters);
        assert!(ends.of(&[end(1)], &state).is_empty(), "no caller waits");
    }

    #[test]
    fn one_more_than_may_wait_is_answered_at_once_until_another_leaves() {
        let ends = Ends::default();
        let mut waiters: Vec<EndWaiter> =
            (0..limits::COMMAND_WAITS_MAX).map(|n| ends.wait_for(id((n % 7) as u8)).unwrap()).collect();
        assert!(ends.wait_for(id(1)).is_none());
        waiters.pop();
        assert!(ends.wait_for(id(1)).is_some());
    }
}
