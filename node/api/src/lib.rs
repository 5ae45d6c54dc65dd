//! The local API of a node: gRPC over a Unix socket, and over loopback TCP with a token.
//!
//! **Contract.** Every call is checked at the border, turned into one [`Call`] on a bounded channel, and answered
//! from what comes back. A failure says whether the request was done, definitely not done, or unknown. What the API does
//! is in `service`, by noun, and knows no transport; `grpc` brings calls to it. Over gRPC requests and queries are services of
//! their own; queries change nothing.
//!
//! **Must not know** how a call is carried out: not the engine, nor consensus, nor the mesh.

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
    Call, CallQueue, Calls, ChangesPage, MemberChange, NodeView, PeerRow, ShardFailure, ShardRow, TopicTold,
};
pub use server::{Api, ApiError};
