//! Operators over gRPC, and the commands that they send.

use skep_proto::v1;
use skep_proto::v1::operator_commands_server::OperatorCommands;
use skep_proto::v1::operator_queries_server::OperatorQueries;
use tonic::{Request, Response, Status};

use super::{Replies, caller, replies, reply};
use crate::service::{Commands, Operators};

/// Two services, which are one over gRPC.
#[derive(Clone)]
pub(super) struct OfOperators {
    pub(super) commands: Commands,
    pub(super) operators: Operators,
}

#[tonic::async_trait]
impl OperatorCommands for OfOperators {
    async fn replace_first(
        &self,
        request: Request<v1::ReplaceFirstRequest>,
    ) -> Result<Response<v1::OperatorReceipt>, Status> {
        reply(self.operators.replace_first(caller(&request), request.into_inner()).await)
    }

    async fn grant(&self, request: Request<v1::GrantOperatorRequest>) -> Result<Response<v1::OperatorReceipt>, Status> {
        reply(self.operators.grant(caller(&request), request.into_inner()).await)
    }

    async fn send(&self, request: Request<v1::SendCommandRequest>) -> Result<Response<v1::CommandReceipt>, Status> {
        reply(self.commands.send(caller(&request), request.into_inner()).await)
    }

    async fn order(&self, request: Request<v1::OrderCommandRequest>) -> Result<Response<v1::CommandReceipt>, Status> {
        reply(self.commands.order(caller(&request), request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl OperatorQueries for OfOperators {
    async fn show(&self, request: Request<v1::ShowCommandRequest>) -> Result<Response<v1::ShowCommandReply>, Status> {
        reply(self.commands.show(caller(&request), request.into_inner()).await)
    }

    async fn list(&self, request: Request<v1::ListCommandsRequest>) -> Result<Response<v1::ListCommandsReply>, Status> {
        reply(self.commands.list(caller(&request), request.into_inner()).await)
    }

    async fn place(&self, request: Request<v1::PlaceRequest>) -> Result<Response<v1::PlaceReply>, Status> {
        reply(self.operators.place(caller(&request), request.into_inner()).await)
    }

    type WatchStream = Replies<v1::CommandEvent>;

    async fn watch(&self, request: Request<v1::WatchCommandsRequest>) -> Result<Response<Self::WatchStream>, Status> {
        replies(self.commands.watch(caller(&request), request.into_inner()).await)
    }

    type WatchOperatorsStream = Replies<v1::OperatorEvent>;

    async fn watch_operators(
        &self,
        request: Request<v1::WatchOperatorsRequest>,
    ) -> Result<Response<Self::WatchOperatorsStream>, Status> {
        replies(self.operators.watch(caller(&request), request.into_inner()).await)
    }

    async fn operators(
        &self,
        request: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsReply>, Status> {
        reply(self.operators.list(caller(&request), request.into_inner()).await)
    }
}
