//! Services that read a shard.

use std::pin::Pin;

use futures::Stream;
use skep_proto::convert::{self, FieldError};
use skep_proto::v1;
use skep_proto::v1::agent_queries_server::AgentQueries;
use skep_proto::v1::task_queries_server::TaskQueries;
use skep_protocol::query::{Answer, AsOf, Query};
use skep_protocol::text::AgentId;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::calls::{Call, Calls};
use crate::doors::Doors;
use crate::failure::Failed;
use crate::follow::follow;
use crate::grpc::patience_ms;

#[derive(Clone)]
pub(crate) struct Queries {
    pub(crate) calls: Calls,
    pub(crate) doors: Doors,
    /// What goes on until somebody ends it ends when the node stops.
    pub(crate) stopped: watch::Receiver<bool>,
}

pub(crate) fn invalid(error: &FieldError) -> Status {
    Failed::field(error).into_status()
}

pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Status> {
    convert::page_limit(asked).map_err(|e| invalid(&e))
}

impl Queries {
    pub(crate) fn new(calls: Calls, doors: Doors, stopped: watch::Receiver<bool>) -> Self {
        Self { calls, doors, stopped }
    }

    pub(crate) async fn read(
        &self,
        read: Option<v1::ReadOptions>,
        query: Query,
        patience_ms: u64,
    ) -> Result<(AsOf, Answer), Status> {
        let read = read.unwrap_or_default();
        let (shard, stale) = (convert::shard_id(read.shard), read.stale);
        let answered = self.calls.ask(|answer| Call::Query { shard, query, stale, patience_ms, answer }).await;
        match answered {
            Ok(Ok(reply)) => Ok((reply.as_of, reply.answer)),
            Ok(Err(why)) => Err(Failed::not_done(&why).into_status()),
            Err(_) => Err(Failed::stopping().into_status()),
        }
    }
}

pub(crate) fn mismatched() -> Status {
    Failed::bug("the answer is not one to this query").into_status()
}

#[tonic::async_trait]
impl TaskQueries for Queries {
    async fn get(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(|e| invalid(&e))?;
        let (as_of, answer) = self.read(request.read, Query::Task(id), patience).await?;
        let Answer::Task(task) = answer else { return Err(mismatched()) };
        let task = task.ok_or_else(|| Failed::not_found(format!("there is no live task {id}")).into_status())?;
        let as_of = Some(convert::as_of_to_proto(&as_of));
        Ok(Response::new(v1::GetTaskReply { as_of, task: Some(convert::task_view_to_proto(&task)) }))
    }

    async fn list(&self, request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let statuses: Result<_, _> = request.statuses.iter().map(|s| convert::status(*s)).collect();
        let query = Query::Tasks {
            statuses: statuses.map_err(|e| invalid(&e))?,
            after: convert::optional_task_id(&request.after).map_err(|e| invalid(&e))?,
            limit: limit(request.limit)?,
        };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::Tasks { tasks, next } = answer else { return Err(mismatched()) };
        Ok(Response::new(v1::ListTasksReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            tasks: tasks.iter().map(convert::task_to_proto).collect(),
            next: next.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        }))
    }

    async fn history(
        &self,
        request: Request<v1::TaskHistoryRequest>,
    ) -> Result<Response<v1::TaskHistoryReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let task = convert::task_id(&request.task_id).map_err(|e| invalid(&e))?;
        let after_index = (request.after_index > 0).then_some(request.after_index);
        let query = Query::History { task, after_index, limit: limit(request.limit)? };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::History { records, more, complete, begins } = answer else { return Err(mismatched()) };
        Ok(Response::new(v1::TaskHistoryReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            events: records.iter().filter_map(convert::event_to_proto).collect(),
            more,
            incomplete: !complete,
            begins_index: begins,
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::TaskEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchTasksRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let place = self.doors.lasting(request.extensions().get())?;
        let request = request.into_inner();
        let topics = convert::topics(&request.topics).map_err(|e| invalid(&e))?;
        let shard = convert::shard_id(request.shard);
        let events = follow(self.calls.clone(), self.stopped.clone(), shard, request.from_index, move |record| {
            let wanted = record.change.what.topic().is_some_and(|topic| topics.contains(&topic));
            let event = if wanted { convert::event_to_proto(record) } else { None };
            event.into_iter().collect()
        });
        Ok(Response::new(Box::pin(place.around(events))))
    }
}

#[tonic::async_trait]
impl AgentQueries for Queries {
    async fn list(&self, request: Request<v1::ListAgentsRequest>) -> Result<Response<v1::ListAgentsReply>, Status> {
        let patience = patience_ms(&request);
        let request = request.into_inner();
        let after = if request.after.is_empty() { None } else { Some(AgentId::new(&request.after)) };
        let after = after.transpose().map_err(|e| invalid(&FieldError { field: "after", why: e.to_string() }))?;
        let query = Query::Agents { after, limit: limit(request.limit)? };
        let (as_of, answer) = self.read(request.read, query, patience).await?;
        let Answer::Agents { agents, next } = answer else { return Err(mismatched()) };
        Ok(Response::new(v1::ListAgentsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            agents: agents.iter().map(convert::agent_to_proto).collect(),
            next: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }
}
