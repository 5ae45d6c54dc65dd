//! Tasks over gRPC.

use skep_proto::v1;
use skep_proto::v1::task_queries_server::TaskQueries;
use skep_proto::v1::task_request::Op;
use skep_proto::v1::task_requests_server::TaskRequests;
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, Replies, caller, replies, reply};
use crate::service::Tasks;

#[tonic::async_trait]
impl TaskRequests for Grpc<Tasks> {
    async fn create(&self, request: Request<v1::CreateTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.create(caller(&request), request.into_inner()).await)
    }

    async fn claim(&self, request: Request<v1::ClaimTaskRequest>) -> Result<Response<v1::ClaimTaskReply>, Status> {
        reply(self.0.claim(caller(&request), request.into_inner()).await)
    }

    async fn progress(&self, request: Request<v1::ReportProgressRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Progress(request.into_inner())).await)
    }

    async fn complete(&self, request: Request<v1::CompleteTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Complete(request.into_inner())).await)
    }

    async fn fail(&self, request: Request<v1::FailTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Fail(request.into_inner())).await)
    }

    async fn cancel(&self, request: Request<v1::CancelTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Cancel(request.into_inner())).await)
    }

    async fn requeue(&self, request: Request<v1::RequeueTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Requeue(request.into_inner())).await)
    }

    async fn release(&self, request: Request<v1::ReleaseTaskRequest>) -> Result<Response<v1::TaskReceipt>, Status> {
        reply(self.0.change(caller(&request), Op::Release(request.into_inner())).await)
    }

    type StreamStream = Replies<v1::TaskReply>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::TaskRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        replies(self.0.stream(caller(&request), request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl TaskQueries for Grpc<Tasks> {
    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskReply>, Status> {
        reply(self.0.get(caller(&request), request.into_inner()).await)
    }

    async fn list(&self, request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksReply>, Status> {
        reply(self.0.list(caller(&request), request.into_inner()).await)
    }

    async fn history(
        &self,
        request: Request<v1::TaskHistoryRequest>,
    ) -> Result<Response<v1::TaskHistoryReply>, Status> {
        reply(self.0.history(caller(&request), request.into_inner()).await)
    }

    type WatchStream = Replies<v1::TaskEvent>;

    async fn watch(&self, request: Request<v1::WatchTasksRequest>) -> Result<Response<Self::WatchStream>, Status> {
        replies(self.0.watch(caller(&request), request.into_inner()).await)
    }
}
