//! Raft groups of a Skep node: openraft, the durable store, the control plane.
