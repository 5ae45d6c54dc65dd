//! Agents: registered, removed, attached, and looked at.

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt as _};
use skep_proto::convert::{FieldError, Meta};
use skep_proto::v1::agent_message::Message as Said;
use skep_proto::v1::node_message::Message as Told;
use skep_proto::{convert, v1};
use skep_protocol::agent::AgentOp;
use skep_protocol::attach::{AgentSaid, AgentTold};
use skep_protocol::field::InField as _;
use skep_protocol::lease::Usable;
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use skep_protocol::query::{Answer, Query};
use skep_protocol::text::AgentId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::queries::mismatched;
use super::{Caller, Host, Messages};
use crate::calls::{Call, Calls};
use crate::drain::until;
use crate::failure::Failed;

/// Names the streams of agents.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
pub(crate) struct Agents {
    host: Host,
}

impl Agents {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn change(&self, caller: &Caller, request: (Meta, AgentOp)) -> Result<v1::AgentReceipt, Failed> {
        let done = self.host.submit(request, caller.patience_ms).await?;
        let Receipt::Agent(agent) = &done.receipt else {
            return Err(Failed::bug("a request without a receipt"));
        };
        let (request_id, agent) = (done.id.as_bytes().to_vec(), agent.to_string());
        Ok(v1::AgentReceipt { request_id, agent, index: done.index })
    }

    pub(crate) async fn register(
        &self,
        caller: Caller,
        request: v1::RegisterAgentRequest,
    ) -> Result<v1::AgentReceipt, Failed> {
        self.change(&caller, convert::register_agent(request)?).await
    }

    pub(crate) async fn remove(
        &self,
        caller: Caller,
        request: v1::RemoveAgentRequest,
    ) -> Result<v1::AgentReceipt, Failed> {
        self.change(&caller, convert::remove_agent(request)?).await
    }

    pub(crate) async fn list(
        &self,
        caller: Caller,
        request: v1::ListAgentsRequest,
    ) -> Result<v1::ListAgentsReply, Failed> {
        let after = if request.after.is_empty() { None } else { Some(AgentId::new(&request.after)) };
        let after = after.transpose().in_field("after")?;
        let query = Query::Agents { after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::Agents { agents, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListAgentsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            agents: agents.iter().map(convert::agent_to_proto).collect(),
            next: next.map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    /// Attaches an agent: hears what its software says, and tells it what it holds, until one of both ends that.
    pub(crate) async fn attach<Error: From<Failed> + Send + 'static>(
        &self,
        caller: Caller,
        mut messages: impl Stream<Item = Result<v1::AgentMessage, Error>> + Unpin + Send + 'static,
    ) -> Result<Messages<v1::NodeMessage>, Error> {
        let place = self.host.lasting(&caller)?;
        let first = messages.next().await.transpose()?.and_then(|message| message.message);
        let Some(Said::Attach(wish)) = first else {
            let error = FieldError { field: "message", why: "the first one must be attach".to_owned() };
            return Err(Failed::field(&error).into());
        };
        let wish = Box::new(convert::attach(wish).map_err(Failed::from)?);
        let stream = NEXT_STREAM.fetch_add(1, Ordering::Relaxed);
        let (told, messages_out) = mpsc::channel(limits::AGENT_MESSAGES_QUEUED_MAX);
        if !self.host.calls.tell(Call::AgentOpened { stream, wish, told }).await {
            return Err(Failed::stopping().into());
        }
        tokio::spawn(listen(self.host.calls.clone(), stream, messages));
        let replies = ReceiverStream::new(messages_out).filter_map(|told| ready(to_proto(told))).map(Ok);
        // A node that stops lets its agents go, to attach again where they can.
        let replies = replies.take_until(until(self.host.stopped.clone()));
        Ok(place.around(replies).boxed())
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
async fn listen<Error>(
    calls: Calls,
    stream: u64,
    mut messages: impl Stream<Item = Result<v1::AgentMessage, Error>> + Unpin,
) {
    while let Some(Ok(message)) = messages.next().await {
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
