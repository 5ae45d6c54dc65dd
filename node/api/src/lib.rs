//! The local API of a Skep node: gRPC over a Unix socket and loopback TCP.
