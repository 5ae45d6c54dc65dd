//! Commands of operators to robots: sent, called off, and looked at.

use futures::StreamExt as _;
use skep_proto::convert::{self, Meta};
use skep_proto::v1;
use skep_protocol::command::CommandOp;
use skep_protocol::field::InField as _;
use skep_protocol::outcome::Receipt;
use skep_protocol::query::{Answer, Query};
use skep_protocol::text::AgentId;

use super::queries::mismatched;
use super::{Caller, Host, Messages};
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Commands {
    host: Host,
}

impl Commands {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn change(&self, caller: &Caller, request: (Meta, CommandOp)) -> Result<v1::CommandReceipt, Failed> {
        let done = self.host.submit(request, caller.patience_ms).await?;
        let Receipt::Command { command, agents, open } = &done.receipt else {
            return Err(Failed::bug("a command without a receipt"));
        };
        Ok(v1::CommandReceipt {
            request_id: done.id.as_bytes().to_vec(),
            command_id: command.as_bytes().to_vec(),
            agents: *agents,
            open: *open,
            index: done.index,
            clock: done.stamp.raw(),
        })
    }

    pub(crate) async fn send(
        &self,
        caller: Caller,
        request: v1::SendCommandRequest,
    ) -> Result<v1::CommandReceipt, Failed> {
        self.change(&caller, convert::send_command(request)?).await
    }

    pub(crate) async fn control(
        &self,
        caller: Caller,
        request: v1::ControlCommandRequest,
    ) -> Result<v1::CommandReceipt, Failed> {
        self.change(&caller, convert::control_command(request)?).await
    }

    pub(crate) async fn show(
        &self,
        caller: Caller,
        request: v1::ShowCommandRequest,
    ) -> Result<v1::ShowCommandReply, Failed> {
        let id = convert::command_id(&request.command_id)?;
        let after = if request.after_agent.is_empty() { None } else { Some(AgentId::new(&request.after_agent)) };
        let after = after.transpose().in_field("after_agent")?;
        let query = match convert::wait_ms(request.wait)? {
            0 => Query::Command { command: id, after },
            // Whoever waits has seen none yet.
            wait_ms => Query::CommandEnd { command: id, wait_ms },
        };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::Command { command: view, next } = answer else { return Err(mismatched()) };
        let view = view.ok_or_else(|| Failed::not_found(format!("the shard holds no command {id}")))?;
        let (as_of, command) = (Some(convert::as_of_to_proto(&as_of)), Some(convert::command_view_to_proto(&view)));
        let next = next.map(|agent| agent.to_string()).unwrap_or_default();
        Ok(v1::ShowCommandReply { as_of, command, next })
    }

    pub(crate) async fn list(
        &self,
        caller: Caller,
        request: v1::ListCommandsRequest,
    ) -> Result<v1::ListCommandsReply, Failed> {
        let after = convert::optional_command_id(&request.after)?;
        let query = Query::Commands { after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::Commands { commands, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListCommandsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            commands: commands.iter().map(convert::command_view_to_proto).collect(),
            next: next.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        })
    }

    pub(crate) async fn watch(
        &self,
        caller: Caller,
        request: v1::WatchCommandsRequest,
    ) -> Result<Messages<v1::CommandEvent>, Failed> {
        let place = self.host.lasting(&caller)?;
        let (wanted, agent) = (convert::optional_command_id(&request.command_id)?, request.agent);
        let events = self.host.follow(convert::shard_id(request.shard), request.from_index, move |record| {
            if wanted.is_some_and(|wanted| record.change.what.command() != Some(wanted)) {
                return Vec::new();
            }
            let mut events = convert::command_events(record);
            events.retain(|event| agent.is_empty() || event.agent.is_empty() || event.agent == agent);
            events
        });
        Ok(place.around(events).boxed())
    }
}
