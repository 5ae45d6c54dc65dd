//! Launcher of real node processes, workloads and benchmarks.
