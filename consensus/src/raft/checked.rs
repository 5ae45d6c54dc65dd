//! A snapshot that was decoded to see whether it is sound, on its way to the machine that is to have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use skep_fleet::FleetState;

/// At most one state, beside the bytes that it was decoded from: a second decoding would take as long again, and as much
/// memory.
#[derive(Clone, Default)]
pub(crate) struct Checked(Arc<Mutex<Option<(Bytes, FleetState)>>>);

impl Checked {
    fn slot(&self) -> MutexGuard<'_, Option<(Bytes, FleetState)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a state for whoever installs these very bytes.
    pub(crate) fn put(&self, data: Bytes, state: FleetState) {
        *self.slot() = Some((data, state));
    }

    /// Lets go of a state that was not installed.
    pub(crate) fn clear(&self) {
        *self.slot() = None;
    }

    /// The state of these bytes, if it is here. They are the same if they lie at the same place: as long as one is kept, no
    /// other can.
    pub(super) fn take(&self, data: &Bytes) -> Option<FleetState> {
        let (kept, state) = self.slot().take()?;
        (kept.as_ptr() == data.as_ptr() && kept.len() == data.len()).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use skep_fleet::FleetLimits;

    use super::*;

    #[test]
    fn a_state_is_handed_to_whoever_installs_the_very_bytes_of_it() {
        let (checked, data) = (Checked::default(), Bytes::from(vec![1, 2, 3]));
        let state = FleetState::new(FleetLimits::default());
        checked.put(data.clone(), state.clone());
        assert!(checked.take(&data.clone()).is_some());
        assert!(checked.take(&data).is_none(), "once");
        checked.put(data.clone(), state.clone());
        assert!(checked.take(&Bytes::from(vec![1, 2, 3])).is_none(), "equal ones may be of another entry");
        checked.put(data.clone(), state);
        checked.clear();
        assert!(checked.take(&data).is_none());
    }
}
