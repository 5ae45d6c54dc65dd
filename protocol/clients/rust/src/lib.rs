//! Client of a Skep node's local API.
//!
//! ```no_run
//! # async fn example() -> Result<(), skep_client::ClientError> {
//! use skep_client::{Client, TaskSpec};
//! let client = Client::connect(skep_client::Endpoint::find(None)?)?;
//! let task = client.create_task(TaskSpec { title: "fetch pallet 7".into(), ..TaskSpec::default() }).await?;
//! let claimed = client.claim_task("robot-7", Some(&task.task_id)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Contract.** A request has one id however often it is sent. It is retried with backoff and jitter for as long as
//! that can help, and ends in exactly one of three ways: done, [`ClientError::NotDone`], or [`ClientError::Unknown`].
//! Once a sending may have been carried out, "not done" is never said unless the shard knows: neither by this call, nor by one
//! that sends again what an earlier one left in doubt.
//!
//! **Must not know** anything of a node but its API.

mod agent;
mod call;
mod client;
mod command_name;
mod endpoint;
mod error;
mod pipe;
mod proof;
mod request;
mod service;

pub use skep_proto::v1::{Agent, Claim, Role, Task, TaskEvent, TaskReceipt, TaskSpec, TaskStatus};
pub use skep_proto::{convert, v1};
pub use skep_protocol::code::Code;
pub use skep_protocol::command;
pub use skep_protocol::ids::{CommandId, Genesis, NodeId, RequestId, ShardId, TaskId};
pub use skep_protocol::offer::GoToken;
pub use skep_protocol::operator::{
    Allowed, FirstOperator, FirstReplacement, OperatorGrant, SignedFirst, SignedGrant, SignedReplacement,
};
pub use skep_protocol::signing::{OperatorKey, OperatorSecret, Place, Signed};
pub use skep_protocol::text::SiteName;
pub use tonic::{Status, Streaming};

pub use agent::{
    AgentOptions, AgentStatus, Assignment, AttachedAgent, ClaimKey, CommandOffers, Fenced, Granted, Holdings,
    LeaseLeft, NotStarted, OfferedCommand, OnRenewal, RunningCommand, StartLeft,
};
pub use client::{
    Client, DeadCommand, DeadLetter, Directory, Page, Read, RedriveError, RedriveTerms, Resent, Settings, pages,
};
pub use command_name::{CommandName, CommandNameError};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use request::{RequestName, RequestNameError};

/// The examples of the documents, compiled as they stand.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
#[doc = include_str!("../../../../README.md")]
mod documents {}
