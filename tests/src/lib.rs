//! Simulator, invariants, end-to-end and architecture tests of Skep.
