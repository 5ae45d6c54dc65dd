//! The pure brain of one Skep node: routing and connectivity.
