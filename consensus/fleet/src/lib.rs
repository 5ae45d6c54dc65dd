//! The pure replicated state machine of a shard, its orchestrator and its clocks.
