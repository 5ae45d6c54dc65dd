//! The engine's own work that is under way: what each piece is for.

use std::collections::BTreeMap;

use crate::key::WorkKey;
use crate::{agents, inbox};

/// Callers' keys are below this, and the engine's own above it: the two never meet.
const CALLERS_END: u64 = 1 << 63;

/// What a piece of the engine's own work is for, and by that which machine hears how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Agents(agents::AgentsPurpose),
    Inboxes(inbox::InboxPurpose),
}

/// The engine's own work that is under way. There is no more of it than the machines ask for at a time.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    purposes: BTreeMap<WorkKey, Purpose>,
    /// The key of the newest.
    last: u64,
}

impl Own {
    pub(crate) fn new() -> Self {
        Self { purposes: BTreeMap::new(), last: CALLERS_END }
    }

    /// A piece of work begins: its key.
    pub(crate) fn begin(&mut self, purpose: Purpose) -> WorkKey {
        self.last += 1;
        let key = WorkKey(self.last);
        self.purposes.insert(key, purpose);
        key
    }

    /// A piece of work ended: what it was for; nothing if it is not the engine's own, or ended before.
    pub(crate) fn end(&mut self, key: WorkKey) -> Option<Purpose> {
        self.purposes.remove(&key)
    }

    /// Nobody waits for the work of a purpose any more: its key, if it is under way.
    pub(crate) fn abandon(&mut self, purpose: &Purpose) -> Option<WorkKey> {
        let key = self.purposes.iter().find(|(_, of)| *of == purpose).map(|(key, _)| *key)?;
        self.purposes.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::ShardId;

    use super::*;

    #[test]
    fn own_work_ends_once_and_an_answer_to_a_caller_ends_none_of_it() {
        let mut own = Own::new();
        let pull = |number| Purpose::Inboxes(inbox::InboxPurpose::Pull { shard: ShardId(1), number });
        let keys = [1, 2].map(|number| own.begin(pull(number)));
        assert!(keys.iter().all(|key| key.0 > CALLERS_END) && keys[0] != keys[1], "{keys:?}");
        assert_eq!(own.end(WorkKey(1)), None);
        assert_eq!((own.end(keys[0]), own.end(keys[0])), (Some(pull(1)), None));
        assert_eq!((own.abandon(&pull(1)), own.abandon(&pull(2))), (None, Some(keys[1])));
        assert_eq!(own.end(keys[1]), None, "nobody hears how it ended");
    }
}
