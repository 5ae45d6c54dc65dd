//! What operators ask, and what they can see.

use std::pin::Pin;

use futures::Stream;
use skep_proto::convert::{self, FieldError, Meta};
use skep_proto::v1;
use skep_proto::v1::operator_commands_server::OperatorCommands;
use skep_proto::v1::operator_queries_server::OperatorQueries;
use skep_protocol::authority::OperatorKey;
use skep_protocol::entry::Op;
use skep_protocol::outcome::Receipt;
use skep_protocol::query::{Answer, Query};
use skep_protocol::text::AgentId;
use tonic::{Request, Response, Status};

use crate::commands::Commands;
use crate::failure::Failed;
use crate::follow::follow;
use crate::grpc::patience_ms;
use crate::queries::{Queries, invalid, limit, mismatched};

impl Commands {
    async fn operator(
        &self,
        parsed: Result<(Meta, Op), FieldError>,
        patience_ms: u64,
    ) -> Result<Response<v1::OperatorReceipt>, Status> {
        let (meta, op) = parsed.map_err(|e| Failed::field(&e).into_status())?;
        let done = self.submit(meta, op, patience_ms).await.map_err(Failed::into_status)?;
        let Receipt::Operator { operator, serial } = &done.receipt else {
            return Err(Failed::bug("a grant without a receipt").into_status());
        };
        let (request_id, operator) = (done.id.as_bytes().to_vec(), operator.to_string());
        Ok(Response::new(v1::OperatorReceipt { request_id, operator, serial: *serial, index: done.index }))
    }

    async fn command(
        &self,
        parsed: Result<(Meta, Op), FieldError>,
        patience_ms: u64,
    ) -> Result<Response<v1::CommandReceipt>, Status> {
        let (meta, op) = parsed.map_err(|e| Failed::field(&e).into_status())?;
        let done = self.submit(meta, op, patience_ms).await.map_err(Failed::into_status)?;
        let Receipt::Command { command, agents, open } = &done.receipt else {
            return Err(Failed::bug("a command without a receipt").into_status());
        };
        Ok(Response::new(v1::CommandReceipt {
            request_id: done.id.as_bytes().to_vec(),
            command_id: command.as_bytes().to_vec(),
            agents: *agents,
            open: *open,
            index: done.index,
            clock: done.stamp.raw(),
        }))
    }
}

#[tonic::async_trait]
impl OperatorCommands for Commands {
    async fn replace_first(
        &self,
        request: Request<v1::ReplaceFirstRequest>,
    ) -> Result<Response<v1::OperatorReceipt>, Status> {
        let patience = patience_ms(&request);
        self.operator(convert::replace_first(request.into_inner()), patience).await
    }

    async fn grant(&self, request: Request<v1::GrantOperatorRequest>) -> Result<Response<v1::OperatorReceipt>, Status> {
        let patience = patience_ms(&request);
        self.operator(convert::grant_operator(request.into_inner()), patience).await
    }

    async fn send(&self, request: Request<v1::SendCommandRequest>) -> Result<Response<v1::CommandReceipt>, Status> {
        let patience = patience_ms(&request);
        self.command(convert::send_command(request.into_inner()), patience).await
    }

    async fn order(&self, request: Request<v1::OrderCommandRequest>) -> Result<Response<v1::CommandReceipt>, Status> {
        let patience = patience_ms(&request);
        self.command(convert::order_command(request.into_inner()), patience).await
    }
}

#[tonic::async_trait]
impl OperatorQueries for Queries {
    async fn show(&self, request: Request<v1::ShowCommandRequest>) -> Result<Response<v1::ShowCommandReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let id = convert::command_id(&request.command_id).map_err(|e| invalid(&e))?;
        let after = if request.after_agent.is_empty() { None } else { Some(AgentId::new(&request.after_agent)) };
        let after = after.transpose().map_err(|e| invalid(&FieldError { field: "after_agent", why: e.to_string() }))?;
        let query = match convert::wait_ms(request.wait).map_err(|e| invalid(&e))? {
            0 => Query::Command { command: id, after },
            // Whoever waits has seen none yet.
            wait_ms => Query::CommandEnd { command: id, wait_ms },
        };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::Command { command: view, next } = answer else { return Err(mismatched()) };
        let view = view.ok_or_else(|| Failed::not_found(format!("the shard holds no command {id}")).into_status())?;
        let (as_of, command) = (Some(convert::as_of_to_proto(&as_of)), Some(convert::command_view_to_proto(&view)));
        let next = next.map(|agent| agent.to_string()).unwrap_or_default();
        Ok(Response::new(v1::ShowCommandReply { as_of, command, next }))
    }

    async fn list(&self, request: Request<v1::ListCommandsRequest>) -> Result<Response<v1::ListCommandsReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let after = convert::optional_command_id(&request.after).map_err(|e| invalid(&e))?;
        let query = Query::Commands { after, limit: limit(request.limit)? };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::Commands { commands, next } = answer else { return Err(mismatched()) };
        Ok(Response::new(v1::ListCommandsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            commands: commands.iter().map(convert::command_view_to_proto).collect(),
            next: next.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        }))
    }

    async fn place(&self, request: Request<v1::PlaceRequest>) -> Result<Response<v1::PlaceReply>, Status> {
        let patience = patience_ms(&request);
        let (as_of, answer) = self.read(request.into_inner().read, Query::Place, patience).await?;
        let Answer::Place { place, first, serial_floor } = answer else { return Err(mismatched()) };
        let not_begun = || Failed::not_found("the shard has not begun".to_owned()).into_status();
        let place = place.ok_or_else(not_begun)?;
        Ok(Response::new(convert::place_to_proto(&as_of, &place, first, serial_floor)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::CommandEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchCommandsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let place = self.doors.lasting(request.extensions().get())?;
        let request = request.into_inner();
        let (wanted, agent) = (request.command_id, request.agent);
        let wanted = convert::optional_command_id(&wanted).map_err(|e| invalid(&e))?;
        let (from, shard) = (request.from_index, convert::shard_id(request.shard));
        let events = follow(self.calls.clone(), self.stopped.clone(), shard, from, move |record| {
            if wanted.is_some_and(|wanted| record.change.what.command() != Some(wanted)) {
                return Vec::new();
            }
            let mut events = convert::command_events(record);
            events.retain(|event| agent.is_empty() || event.agent.is_empty() || event.agent == agent);
            events
        });
        Ok(Response::new(Box::pin(place.around(events))))
    }

    async fn operators(
        &self,
        request: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let after = if request.after.is_empty() { None } else { Some(request.after.parse::<OperatorKey>()) };
        let after = after.transpose().map_err(|e| invalid(&FieldError { field: "after", why: e.to_string() }))?;
        let query = Query::Operators { after, limit: limit(request.limit)? };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::Operators { operators, next } = answer else { return Err(mismatched()) };
        Ok(Response::new(v1::ListOperatorsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            operators: operators.iter().map(convert::operator_to_proto).collect(),
            next: next.map(|key| key.to_string()).unwrap_or_default(),
        }))
    }
}
