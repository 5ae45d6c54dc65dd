//! Services that change a shard.

use std::pin::Pin;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use skep_proto::convert::{self, FieldError, Meta};
use skep_proto::v1::task_command::Command;
use skep_proto::v1::task_command_reply::Result as CommandResult;
use skep_proto::v1::task_commands_server::TaskCommands;
use skep_proto::v1::{self, TaskReceipt};
use skep_protocol::entry::Op;
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Settled};
use skep_protocol::query::{Answer, Query};
use skep_protocol::time::LogInstant;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::calls::{Call, Calls, Submission, Unanswered};
use crate::doors::Doors;
use crate::failure::Failed;
use crate::grpc::patience_ms;
use crate::service::PATIENCE_MS_DEFAULT;

/// What a request did and where it stands.
pub(crate) struct Done {
    pub(crate) id: RequestId,
    shard: ShardId,
    pub(crate) receipt: Receipt,
    pub(crate) index: u64,
    pub(crate) stamp: LogInstant,
}

impl Done {
    fn task_receipt(&self) -> Option<TaskReceipt> {
        convert::receipt_to_proto(self.id, &self.receipt, self.index, self.stamp)
    }
}

#[derive(Clone)]
pub(crate) struct Commands {
    pub(crate) calls: Calls,
    pub(crate) doors: Doors,
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Commands {
    pub(crate) fn new(calls: Calls, doors: Doors, stopped: watch::Receiver<bool>) -> Self {
        Self { calls, doors, stopped }
    }

    /// Carries a request out: fills in what the client left out, and waits for its end.
    pub(crate) async fn submit(&self, meta: Meta, op: Op, patience_ms: u64) -> Result<Done, Failed> {
        let shard = meta.shard;
        let first_sent = match (meta.first_sent, meta.id) {
            (Some(first_sent), _) => first_sent,
            (None, None) => self.clock(shard).await?,
            // Filled in anew at every sending, it would let a late retry pass for a new request.
            (None, Some(_)) => {
                let why =
                    "give the shard's clock at first sending with every request_id (NodeQueries.Clock)".to_owned();
                return Err(Failed::field(&FieldError { field: "meta.first_sent", why }));
            }
        };
        let id = meta.id.unwrap_or_else(|| RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes()));
        let deadline = meta.deadline.unwrap_or_else(|| first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT));
        let submission = Box::new(Submission { shard, id, first_sent, deadline, op, patience_ms });
        match self.calls.ask(|answer| Call::Submit { submission, answer }).await {
            Ok(Settled::Done { index, stamp, receipt }) => Ok(Done { id, shard, receipt, index, stamp }),
            Ok(Settled::NotDone(why)) => Err(Failed::not_done(&why)),
            Ok(Settled::Unknown | Settled::Read(_) | Settled::Heard(_) | Settled::Pulled(_)) => Err(Failed::unknown()),
            Err(Unanswered::NotTaken) => Err(Failed::stopping()),
            // A node that stops may have proposed it.
            Err(Unanswered::Dropped) => Err(Failed::unknown()),
        }
    }

    async fn clock(&self, shard: ShardId) -> Result<LogInstant, Failed> {
        let clock = self.calls.ask(|answer| Call::Clock { shard, answer }).await.map_err(|_| Failed::stopping())?;
        clock.map_err(|why| Failed::not_done(&why))
    }

    async fn task(&self, command: Command, patience_ms: u64) -> Result<Done, Failed> {
        let (meta, op) = convert::task_command(command).map_err(|e| Failed::field(&e))?;
        self.submit(meta, op, patience_ms).await
    }

    async fn unary(&self, command: Command, patience_ms: u64) -> Result<Response<TaskReceipt>, Status> {
        let done = self.task(command, patience_ms).await.map_err(Failed::into_status)?;
        done.task_receipt().map(Response::new).ok_or_else(|| Failed::bug("a command without a receipt").into_status())
    }

    async fn answer_on_stream(&self, command: v1::TaskCommand) -> v1::TaskCommandReply {
        let Some(command) = command.command else {
            let error = FieldError { field: "command", why: "it is missing".to_owned() };
            return reply(Vec::new(), CommandResult::Failure(Failed::field(&error).failure));
        };
        let id = request_id(&command);
        match self.task(command, PATIENCE_MS_DEFAULT).await {
            Ok(done) => {
                let result =
                    done.task_receipt().map_or(CommandResult::Nothing(v1::NothingToClaim {}), CommandResult::Receipt);
                reply(done.id.as_bytes().to_vec(), result)
            }
            Err(failed) => reply(id, CommandResult::Failure(failed.failure)),
        }
    }
}

fn reply(request_id: Vec<u8>, result: CommandResult) -> v1::TaskCommandReply {
    v1::TaskCommandReply { request_id, result: Some(result) }
}

fn request_id(command: &Command) -> Vec<u8> {
    let meta = match command {
        Command::Create(request) => &request.meta,
        Command::Claim(request) => &request.meta,
        Command::Progress(request) => &request.meta,
        Command::Complete(request) => &request.meta,
        Command::Fail(request) => &request.meta,
        Command::Cancel(request) => &request.meta,
        Command::Requeue(request) => &request.meta,
        Command::Release(request) => &request.meta,
    };
    meta.as_ref().map(|meta| meta.request_id.clone()).unwrap_or_default()
}

#[tonic::async_trait]
impl TaskCommands for Commands {
    async fn create(&self, request: Request<v1::CreateTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        let mut request = request.into_inner();
        if request.task_id.is_empty() && request.meta.as_ref().is_none_or(|meta| meta.request_id.is_empty()) {
            request.task_id = uuid::Uuid::now_v7().into_bytes().to_vec();
        }
        self.unary(Command::Create(request), patience).await
    }

    async fn claim(&self, request: Request<v1::ClaimTaskRequest>) -> Result<Response<v1::ClaimTaskReply>, Status> {
        let patience = patience_ms(&request);
        let done = self.task(Command::Claim(request.into_inner()), patience).await.map_err(Failed::into_status)?;
        let Receipt::Task { task, .. } = &done.receipt else {
            return Ok(Response::new(v1::ClaimTaskReply::default()));
        };
        // The claim is done whether or not its task can be read now.
        let (shard, query) = (done.shard, Query::Task(*task));
        let read = |answer| Call::Query { shard, query, stale: false, patience_ms: patience, answer };
        let task = match self.calls.ask(read).await {
            Ok(Ok(reply)) => match reply.answer {
                Answer::Task(Some(view)) => Some(convert::task_to_proto(&view.task)),
                _ => None,
            },
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(Response::new(v1::ClaimTaskReply { receipt: done.task_receipt(), task }))
    }

    async fn progress(&self, request: Request<v1::ReportProgressRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Progress(request.into_inner()), patience).await
    }

    async fn complete(&self, request: Request<v1::CompleteTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Complete(request.into_inner()), patience).await
    }

    async fn fail(&self, request: Request<v1::FailTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Fail(request.into_inner()), patience).await
    }

    async fn cancel(&self, request: Request<v1::CancelTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Cancel(request.into_inner()), patience).await
    }

    async fn requeue(&self, request: Request<v1::RequeueTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Requeue(request.into_inner()), patience).await
    }

    async fn release(&self, request: Request<v1::ReleaseTaskRequest>) -> Result<Response<TaskReceipt>, Status> {
        let patience = patience_ms(&request);
        self.unary(Command::Release(request.into_inner()), patience).await
    }

    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::TaskCommandReply, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::TaskCommand>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let place = self.doors.lasting(request.extensions().get())?;
        let mut commands = request.into_inner();
        let (replies, stream) = mpsc::channel(limits::STREAM_REQUESTS_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            let mut in_flight = FuturesUnordered::new();
            let mut open = true;
            while open || !in_flight.is_empty() {
                tokio::select! {
                    Some(answer) = in_flight.next() => if replies.send(Ok(answer)).await.is_err() { return },
                    command = commands.message(), if open && in_flight.len() < limits::STREAM_REQUESTS_MAX => {
                        match command {
                            Ok(Some(command)) => in_flight.push(service.answer_on_stream(command)),
                            Ok(None) | Err(_) => open = false,
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(place.around(ReceiverStream::new(stream)))))
    }
}
