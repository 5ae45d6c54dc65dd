//! gRPC.

mod status;
