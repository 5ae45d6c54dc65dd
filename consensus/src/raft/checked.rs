//! A snapshot that a node decoded to see whether it is sound, on its way to the machine that installs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::FleetState;
use skep_store::PartFile;

/// A decoded state, and the file that it was decoded from.
type Decoded = (Arc<PartFile>, FleetState);

/// At most one decoded state, with its file. A second decoding would take as long again, and a second copy of the bytes
/// as much memory.
#[derive(Clone, Default)]
pub(crate) struct Checked(Arc<Mutex<Option<Decoded>>>);

impl Checked {
    fn slot(&self) -> MutexGuard<'_, Option<Decoded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a state for the installation of this very file.
    pub(crate) fn put(&self, file: Arc<PartFile>, state: FleetState) {
        *self.slot() = Some((file, state));
    }

    /// Drops a state that was not installed.
    pub(crate) fn clear(&self) {
        *self.slot() = None;
    }

    /// Takes the state that was decoded from this file, if it is here.
    pub(super) fn take(&self, file: &Arc<PartFile>) -> Option<FleetState> {
        let (kept, state) = self.slot().take()?;
        Arc::ptr_eq(&kept, file).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skep_fleet::FleetLimits;
    use skep_protocol::frame::SnapshotId;
    use skep_protocol::ids::{RaftId, ShardId};
    use skep_store::{PartHead, Store, StoreOptions};

    use super::*;

    #[test]
    fn a_state_is_handed_to_whoever_installs_the_very_file_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), [3; 16], StoreOptions::default()).unwrap();
        let file = || {
            let id = SnapshotId { bytes: 3, digest: 7 };
            let head = PartHead { from: RaftId(1), id, index: 3, meta: Bytes::from_static(b"meta") };
            Arc::new(store.snapshots().begin_part(ShardId::FIRST, head, |_| true).unwrap().unwrap().0)
        };
        let (checked, came) = (Checked::default(), file());
        let state = FleetState::new(FleetLimits::default());
        checked.put(Arc::clone(&came), state.clone());
        assert!(checked.take(&came).is_some());
        assert!(checked.take(&came).is_none(), "once");
        checked.put(Arc::clone(&came), state.clone());
        assert!(checked.take(&file()).is_none(), "what is announced alike may hold anything");
        checked.put(Arc::clone(&came), state);
        checked.clear();
        assert!(checked.take(&came).is_none());
    }
}
