//! The local API of a node: gRPC over a Unix socket, and over loopback TCP with a token.
//!
//! **Contract.** The API checks every call at the border, turns it into one [`Call`] on a bounded channel, and answers
//! it from what comes back. A failure says whether the request was done, was definitely not done, or is in doubt.
//! `service` holds what the API does, by noun, and knows no transport; `grpc` brings calls to it. Over gRPC, requests
//! and queries are services of their own; queries change nothing.
//!
//! **Must not know** how the node carries a call out: not the engine, nor consensus, nor the mesh.

mod calls;
mod doors;
mod drain;
mod failure;
mod greet;
mod grpc;
mod server;
mod service;
mod unread;

pub use calls::{
    AdmitFailure, Call, CallQueue, Calls, ChangesPage, MemberChange, NodeView, PeerRow, ShardFailure, ShardRow,
    TopicTold,
};
pub use server::{Api, ApiError};
