//! The Skep node: one binary that every robot, edge box and agent host runs.
