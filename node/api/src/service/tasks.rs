//! Tasks: made, changed, and looked at.

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use skep_proto::convert::{self, FieldError};
use skep_proto::v1;
use skep_proto::v1::task_reply::Result as OpResult;
use skep_proto::v1::task_request::Op;
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use skep_protocol::query::{Answer, Query};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::queries::mismatched;
use super::requests::Done;
use super::{Caller, Host, Messages, PATIENCE_MS_DEFAULT};
use crate::calls::Call;
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Tasks {
    host: Host,
}

fn receipt(done: &Done) -> Option<v1::TaskReceipt> {
    convert::receipt_to_proto(done.id, &done.receipt, done.index, done.stamp)
}

impl Tasks {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn submit(&self, op: Op, patience_ms: u64) -> Result<Done, Failed> {
        self.host.submit(convert::task_request(op)?, patience_ms).await
    }

    /// Changes a task.
    pub(crate) async fn change(&self, caller: Caller, op: Op) -> Result<v1::TaskReceipt, Failed> {
        let done = self.submit(op, caller.patience_ms).await?;
        receipt(&done).ok_or_else(|| Failed::bug("a request without a receipt"))
    }

    pub(crate) async fn create(
        &self,
        caller: Caller,
        mut request: v1::CreateTaskRequest,
    ) -> Result<v1::TaskReceipt, Failed> {
        if request.task_id.is_empty() && request.meta.as_ref().is_none_or(|meta| meta.request_id.is_empty()) {
            request.task_id = uuid::Uuid::now_v7().into_bytes().to_vec();
        }
        self.change(caller, Op::Create(request)).await
    }

    pub(crate) async fn claim(
        &self,
        caller: Caller,
        request: v1::ClaimTaskRequest,
    ) -> Result<v1::ClaimTaskReply, Failed> {
        let patience_ms = caller.patience_ms;
        let done = self.submit(Op::Claim(request), patience_ms).await?;
        let Receipt::Task { task, .. } = &done.receipt else {
            return Ok(v1::ClaimTaskReply::default());
        };
        // The claim is done whether or not its task can be read now.
        let (shard, query) = (done.shard, Query::Task(*task));
        let read = |answer| Call::Query { shard, query, stale: false, patience_ms, answer };
        let task = match self.host.calls.ask(read).await {
            Ok(Ok(reply)) => match reply.answer {
                Answer::Task(Some(view)) => Some(convert::task_to_proto(&view.task)),
                _ => None,
            },
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(v1::ClaimTaskReply { receipt: receipt(&done), task })
    }

    /// Carries out what comes, much of it at a time, and says of each what became of it.
    pub(crate) async fn stream<Error: Send + 'static>(
        &self,
        caller: Caller,
        mut requests: impl Stream<Item = Result<v1::TaskRequest, Error>> + Unpin + Send + 'static,
    ) -> Result<Messages<v1::TaskReply>, Failed> {
        let place = self.host.lasting(&caller)?;
        let (replies, stream) = mpsc::channel::<Result<v1::TaskReply, Failed>>(limits::STREAM_REQUESTS_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            let mut in_flight = FuturesUnordered::new();
            let mut open = true;
            while open || !in_flight.is_empty() {
                tokio::select! {
                    Some(answer) = in_flight.next() => if replies.send(Ok(answer)).await.is_err() { return },
                    request = requests.next(), if open && in_flight.len() < limits::STREAM_REQUESTS_MAX => {
                        match request {
                            Some(Ok(request)) => in_flight.push(service.answer_on_stream(request)),
                            Some(Err(_)) | None => open = false,
                        }
                    }
                }
            }
        });
        Ok(place.around(ReceiverStream::new(stream)).boxed())
    }

    async fn answer_on_stream(&self, request: v1::TaskRequest) -> v1::TaskReply {
        let Some(op) = request.op else {
            let error = FieldError { field: "op", why: "it is missing".to_owned() };
            return reply(Vec::new(), OpResult::Failure(Failed::field(&error).failure));
        };
        let id = convert::request_id(&op);
        match self.submit(op, PATIENCE_MS_DEFAULT).await {
            Ok(done) => {
                let result = receipt(&done).map_or(OpResult::Nothing(v1::NothingToClaim {}), OpResult::Receipt);
                reply(done.id.as_bytes().to_vec(), result)
            }
            Err(failed) => reply(id, OpResult::Failure(failed.failure)),
        }
    }

    pub(crate) async fn get(&self, caller: Caller, request: v1::GetTaskRequest) -> Result<v1::GetTaskReply, Failed> {
        let id = convert::task_id(&request.task_id)?;
        let (as_of, answer) = self.host.read(&caller, request.read, Query::Task(id)).await?;
        let Answer::Task(task) = answer else { return Err(mismatched()) };
        let task = task.ok_or_else(|| Failed::not_found(format!("there is no live task {id}")))?;
        let as_of = Some(convert::as_of_to_proto(&as_of));
        Ok(v1::GetTaskReply { as_of, task: Some(convert::task_view_to_proto(&task)) })
    }

    pub(crate) async fn list(
        &self,
        caller: Caller,
        request: v1::ListTasksRequest,
    ) -> Result<v1::ListTasksReply, Failed> {
        let statuses = request.statuses.iter().map(|s| convert::status(*s));
        let query = Query::Tasks {
            statuses: statuses.collect::<Result<Vec<_>, _>>()?,
            after: convert::optional_task_id(&request.after)?,
            limit: convert::page_limit(request.limit)?,
        };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::Tasks { tasks, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListTasksReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            tasks: tasks.iter().map(convert::task_to_proto).collect(),
            next: next.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        })
    }

    pub(crate) async fn history(
        &self,
        caller: Caller,
        request: v1::TaskHistoryRequest,
    ) -> Result<v1::TaskHistoryReply, Failed> {
        let task = convert::task_id(&request.task_id)?;
        let after_index = (request.after_index > 0).then_some(request.after_index);
        let query = Query::History { task, after_index, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::History { records, more, complete, begins } = answer else { return Err(mismatched()) };
        Ok(v1::TaskHistoryReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            events: records.iter().filter_map(convert::event_to_proto).collect(),
            more,
            incomplete: !complete,
            begins_index: begins,
        })
    }

    pub(crate) async fn watch(
        &self,
        caller: Caller,
        request: v1::WatchTasksRequest,
    ) -> Result<Messages<v1::TaskEvent>, Failed> {
        let place = self.host.lasting(&caller)?;
        let feeds = convert::feeds(&request.feeds)?;
        let events = self.host.follow(convert::shard_id(request.shard), request.from_index, move |record| {
            let wanted = record.change.what.feed().is_some_and(|feed| feeds.contains(&feed));
            let event = if wanted { convert::event_to_proto(record) } else { None };
            event.into_iter().collect()
        });
        Ok(place.around(events).boxed())
    }
}

fn reply(request_id: Vec<u8>, result: OpResult) -> v1::TaskReply {
    v1::TaskReply { request_id, result: Some(result) }
}
