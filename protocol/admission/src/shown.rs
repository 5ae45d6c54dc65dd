//! The chains by which a node let members in, as they were shown.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use skep_protocol::limits;
use skep_trust::{Member, Serial};

/// The chains by which a node let members in: it verifies them again under another root document.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    chains: BTreeMap<Serial, Bytes>,
    /// In the order in which they came.
    order: VecDeque<Serial>,
}

impl Shown {
    pub(crate) fn note(&mut self, member: &Member, chain: &Bytes) {
        let Some(serial) = member.serial() else { return };
        if self.chains.get(&serial) == Some(chain) {
            return;
        }
        // A copy of its own, so that it keeps no larger buffer in which it came.
        if self.chains.insert(serial, Bytes::copy_from_slice(chain)).is_some() {
            return;
        }
        self.order.push_back(serial);
        if self.order.len() > limits::CHAINS_KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.chains.remove(&oldest);
        }
    }

    pub(crate) fn of(&self, member: &Member) -> Option<Bytes> {
        self.chains.get(&member.serial()?).cloned()
    }
}
