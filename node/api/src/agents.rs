//! Services for agents: registered, removed, attached.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use skep_proto::convert::{self, FieldError, Meta};
use skep_proto::v1;
use skep_proto::v1::agent_commands_server::AgentCommands;
use skep_proto::v1::agent_message::Message as Said;
use skep_proto::v1::node_message::Message as Told;
use skep_protocol::agent::Usable;
use skep_protocol::entry::Op;
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::calls::{AgentSaid, AgentTold, Call, Calls};
use crate::commands::Commands;
use crate::drain::until;
use crate::failure::Failed;
use crate::grpc::patience_ms;

/// Names the streams of agents.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

impl Commands {
    async fn agent(
        &self,
        parsed: Result<(Meta, Op), FieldError>,
        patience_ms: u64,
    ) -> Result<Response<v1::AgentReceipt>, Status> {
        let (meta, op) = parsed.map_err(|e| Failed::field(&e).into_status())?;
        let done = self.submit(meta, op, patience_ms).await.map_err(Failed::into_status)?;
        let Receipt::Agent(agent) = &done.receipt else {
            return Err(Failed::bug("a command without a receipt").into_status());
        };
        let (request_id, agent) = (done.id.as_bytes().to_vec(), agent.to_string());
        Ok(Response::new(v1::AgentReceipt { request_id, agent, index: done.index }))
    }
}

fn to_proto(told: AgentTold) -> Option<v1::NodeMessage> {
    let message = match told {
        AgentTold::Attached { attachment, lease } => Told::Attached(v1::AgentAttached {
            attachment: attachment.0,
            lease_ttl: Some(convert::duration_to_proto(lease.ttl_ms)),
        }),
        AgentTold::Holds(claims) => {
            let claims = claims.into_iter();
            let held = claims.map(|(task, epoch)| v1::HeldClaim { task_id: task.as_bytes().to_vec(), epoch: epoch.0 });
            Told::Holds(v1::ClaimsHeld { claims: held.collect() })
        }
        AgentTold::Grant(grant) => Told::Grant(v1::TaskGrant {
            epoch: grant.task.epoch.0,
            task: Some(convert::task_to_proto(&grant.task)),
            spends_credit: grant.spends_credit,
            lease: grant.lease.map(lease),
        }),
        AgentTold::Lost { task, epoch } => {
            Told::Lost(v1::ClaimLost { task_id: task.as_bytes().to_vec(), epoch: epoch.0 })
        }
        AgentTold::Lease(renewed) => Told::Lease(lease(renewed)),
        AgentTold::Command(command, told) => Told::Command(convert::news_to_proto(command, told)),
        AgentTold::Ended(why) => Told::Failure(Failed::not_done(&why?).failure),
    };
    Some(v1::NodeMessage { message: Some(message) })
}

fn lease(Usable { stamp, usable_ms }: Usable) -> v1::LeaseRenewed {
    v1::LeaseRenewed { stamp, usable: Some(convert::duration_to_proto(usable_ms)) }
}

/// Hands over what an agent says, until it ends.
async fn listen(calls: Calls, stream: u64, mut messages: Streaming<v1::AgentMessage>) {
    while let Ok(Some(message)) = messages.message().await {
        let said = match message.message {
            Some(Said::Credits(credits)) => AgentSaid::Credits(credits.count.into()),
            Some(Said::KeepAlive(alive)) => {
                AgentSaid::KeepAlive { stamp: alive.stamp, place: alive.place.map(convert::position) }
            }
            Some(Said::Detach(v1::DetachAgent {})) => AgentSaid::Detach,
            Some(Said::TakeCommands(take)) => match convert::take_commands(&take) {
                Ok((groups, in_hand)) => AgentSaid::TakesCommands { groups, in_hand },
                Err(error) => {
                    tracing::warn!(%error, "an agent takes commands and says what makes no sense: it gets none");
                    continue;
                }
            },
            Some(Said::Command(step)) => match convert::command_step(step) {
                Ok((command, said)) => AgentSaid::Command(command, said),
                Err(error) => {
                    tracing::warn!(%error, "an agent says something of a command that makes no sense");
                    continue;
                }
            },
            // A second attach, or something newer than this node.
            Some(Said::Attach(_)) | None => continue,
        };
        if !calls.tell(Call::AgentSaid { stream, said }).await {
            return;
        }
    }
    calls.tell(Call::AgentSaid { stream, said: AgentSaid::Closed }).await;
}

#[tonic::async_trait]
impl AgentCommands for Commands {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::NodeMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let place = self.doors.lasting(request.extensions().get())?;
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.message);
        let Some(Said::Attach(wish)) = first else {
            let error = FieldError { field: "message", why: "the first one must be attach".to_owned() };
            return Err(Failed::field(&error).into_status());
        };
        let wish = Box::new(convert::attach(wish).map_err(|e| Failed::field(&e).into_status())?);
        let stream = NEXT_STREAM.fetch_add(1, Ordering::Relaxed);
        let (told, messages_out) = mpsc::channel(limits::AGENT_MESSAGES_QUEUED_MAX);
        if !self.calls.tell(Call::AgentOpened { stream, wish, told }).await {
            return Err(Failed::stopping().into_status());
        }
        tokio::spawn(listen(self.calls.clone(), stream, messages));
        let replies = ReceiverStream::new(messages_out).filter_map(to_proto).map(Ok);
        // A node that stops lets its agents go, to attach again where they can.
        let replies = futures::StreamExt::take_until(replies, until(self.stopped.clone()));
        Ok(Response::new(Box::pin(place.around(replies))))
    }

    async fn register(&self, request: Request<v1::RegisterAgentRequest>) -> Result<Response<v1::AgentReceipt>, Status> {
        let patience = patience_ms(&request);
        self.agent(convert::register_agent(request.into_inner()), patience).await
    }

    async fn remove(&self, request: Request<v1::RemoveAgentRequest>) -> Result<Response<v1::AgentReceipt>, Status> {
        let patience = patience_ms(&request);
        self.agent(convert::remove_agent(request.into_inner()), patience).await
    }
}
