//! Counts of the due items that code looked at, for tests that no code walks all of them.

use std::cell::Cell;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Counts one more item that this thread looked at.
pub(crate) fn count() {
    LOOKS.with(|looks| looks.set(looks.get() + 1));
}

/// Number of items since the last call.
pub(crate) fn take() -> usize {
    LOOKS.with(Cell::take)
}
