//! The memory of request ids.

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use skep_protocol::entry::Request;
use skep_protocol::ids::RequestId;
use skep_protocol::outcome::{Refusal, Reply};
use skep_protocol::time::LogInstant;

/// What is remembered of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) body_hash: u128,
    pub(crate) first_sent: LogInstant,
    pub(crate) deadline: LogInstant,
    pub(crate) reply: Reply,
}

/// Request ids and their answers, each until its deadline, and bounded in number.
///
/// An id need not be remembered past its deadline, because a retry is refused as expired from then on. When the
/// table is full, the ids that were first sent earliest are forgotten and the floor rises above them: a request
/// first sent below the floor is refused, never executed, since it may be a retry of a forgotten one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dedup {
    by_id: OrdMap<RequestId, Remembered>,
    by_first_sent: OrdSet<(LogInstant, RequestId)>,
    by_deadline: OrdSet<(LogInstant, RequestId)>,
    floor: LogInstant,
}

impl Dedup {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn floor(&self) -> LogInstant {
        self.floor
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&RequestId, &Remembered)> {
        self.by_id.iter()
    }

    pub(crate) fn restore(floor: LogInstant, records: Vec<(RequestId, Remembered)>) -> Self {
        let mut dedup = Self { floor, ..Self::default() };
        for (id, record) in records {
            dedup.insert(id, record);
        }
        dedup
    }

    /// Forgets the ids whose deadline has passed.
    pub(crate) fn forget_expired(&mut self, now: LogInstant) {
        while let Some((deadline, id)) = self.by_deadline.get_min().copied() {
            if deadline >= now {
                break;
            }
            self.remove(deadline, id);
        }
    }

    /// The answer to a request that was answered before, if this is one.
    pub(crate) fn recall(&self, request: &Request, body_hash: u128) -> Option<Reply> {
        let record = self.by_id.get(&request.id)?;
        if record.body_hash == body_hash {
            Some(record.reply.clone())
        } else {
            Some(Reply::Refused(Refusal::RequestIdReused))
        }
    }

    /// Remembers an answer.
    pub(crate) fn remember(&mut self, request: &Request, body_hash: u128, reply: Reply, ids_max: u64) {
        while self.by_id.len() as u64 >= ids_max.max(1) {
            let Some((first_sent, id)) = self.by_first_sent.get_min().copied() else { break };
            let deadline = self.by_id.get(&id).map_or(LogInstant::ZERO, |record| record.deadline);
            self.remove(deadline, id);
            self.floor = self.floor.max(first_sent.plus_ms(1));
        }
        let record = Remembered { body_hash, first_sent: request.first_sent, deadline: request.deadline, reply };
        self.insert(request.id, record);
    }

    fn insert(&mut self, id: RequestId, record: Remembered) {
        self.by_first_sent.insert((record.first_sent, id));
        self.by_deadline.insert((record.deadline, id));
        self.by_id.insert(id, record);
    }

    fn remove(&mut self, deadline: LogInstant, id: RequestId) {
        self.by_deadline.remove(&(deadline, id));
        if let Some(record) = self.by_id.remove(&id) {
            self.by_first_sent.remove(&(record.first_sent, id));
        }
    }
}
