//! Raw to validated configuration of a Skep node.
