//! Lines of the log about what others do: one a minute of each kind, whatever they do.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far two lines of one kind are apart.
const APART: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    held_back: u64,
}

/// What is told of one kind.
#[derive(Debug, Default)]
pub(crate) struct Noise(Mutex<State>);

impl Noise {
    /// It happened once more. If a line is due: how often it has happened since the last one, this time not counted.
    pub(crate) fn happened(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.said.is_some_and(|said| said.elapsed() < APART) {
            state.held_back = state.held_back.saturating_add(1);
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_others_do_fills_a_line_a_minute() {
        let noise = Noise::default();
        let mut lines = Vec::new();
        for _ in 0..3_000 {
            lines.extend(noise.happened());
            tokio::time::advance(Duration::from_millis(40)).await;
        }
        assert_eq!(lines, [0, 1_499], "two minutes, and nothing is left out of the count");
    }
}
