//! Waiting for commands to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::CommandId;
use skep_protocol::limits;
use tokio::sync::Notify;

/// Who waits for which command. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ends(Arc<Mutex<BTreeMap<CommandId, Waiting>>>);

#[derive(Default)]
struct Waiting {
    notify: Arc<Notify>,
    waiters: usize,
}

/// Somebody that waits for a command, until it is dropped.
pub(crate) struct Waiter {
    ends: Ends,
    command: CommandId,
    notify: Arc<Notify>,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<CommandId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more waits for a command; none if too many commands are waited for.
    pub(crate) fn wait_for(&self, command: CommandId) -> Option<Waiter> {
        let mut waiting = self.lock();
        if waiting.len() >= limits::COMMAND_WAITS_MAX && !waiting.contains_key(&command) {
            return None;
        }
        let known = waiting.entry(command).or_default();
        known.waiters += 1;
        Some(Waiter { ends: self.clone(), command, notify: Arc::clone(&known.notify) })
    }

    /// Wakes those who wait for commands of which something ended. To be called once it is in the state.
    pub(crate) fn tell(&self, set: &ChangeSet) {
        let waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        for command in set.changes.iter().filter_map(|change| change.what.ended_command()) {
            if let Some(known) = waiting.get(&command) {
                known.notify.notify_waiters();
            }
        }
    }
}

impl Waiter {
    /// The next time that something of the command ends. Begun before the state is looked at, nothing is missed.
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.ends.lock();
        let Some(known) = waiting.get_mut(&self.command) else { return };
        known.waiters -= 1;
        if known.waiters == 0 {
            waiting.remove(&self.command);
        }
    }
}
