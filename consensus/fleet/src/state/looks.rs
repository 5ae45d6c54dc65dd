//! How much of what will be due was looked at, for tests that nobody walks all of it.

use std::cell::Cell;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// One more was looked at, by this thread.
pub(crate) fn count() {
    LOOKS.with(|looks| looks.set(looks.get() + 1));
}

/// How many were, since this was asked last.
pub(crate) fn take() -> usize {
    LOOKS.with(Cell::take)
}
