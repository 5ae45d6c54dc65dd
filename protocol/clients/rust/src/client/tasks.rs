//! Tasks: work that agents claim, one after the other.

use skep_proto::v1;
use skep_proto::v1::task_queries_client::TaskQueriesClient;
use skep_proto::v1::task_request::Op;
use skep_proto::v1::task_requests_client::TaskRequestsClient;
use tonic::{Request, Streaming};

use super::calls::{definite, query, read_options, request};
use super::{Client, Read};
use crate::call::{Asked, send};
use crate::error::ClientError;
use crate::pipe::Pipe;
use crate::request::RequestName;

macro_rules! task_request {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*), $variant:ident . $method:ident,
     $message:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown.
        pub async fn $name(&self, $($argument: $type),*) -> Result<v1::TaskReceipt, ClientError> {
            let meta = self.meta().await?;
            let request_id = meta.request_id.clone();
            let id = RequestName::of(&meta).to_string();
            let message = v1::$message { meta: Some(meta), $($field: $value),* };
            let result = if self.settings.pipelined {
                let pipe = self.pipe.get_or_init(|| Pipe::open(self.service()));
                let sending = |request: Request<v1::$message>| {
                    let (pipe, request_id) = (pipe.clone(), request_id.clone());
                    async move { pipe.send(request_id, Op::$variant(request.into_inner())).await }
                };
                send(self.asked(&id), &message, self.patience(), sending).await
            } else {
                let service = TaskRequestsClient::new(self.service());
                let sending = |request| {
                    let mut service = service.clone();
                    async move { service.$method(request).await }
                };
                send(self.asked(&id), &message, self.patience(), sending).await
            };
            self.mind_shard(&result);
            result
        }
    };
}

impl Client {
    task_request!(
        /// Adds a task; the request id becomes its id.
        create_task(spec: v1::TaskSpec),
        Create.create, CreateTaskRequest { task_id: Vec::new(), spec: Some(spec) }
    );
    request!(
        /// Claims a task for an agent; without a task id, the most urgent task that the agent can do. The reply is
        /// empty if no such task is pending.
        claim_task(agent: &str, task_id: Option<&[u8]>) -> v1::ClaimTaskReply,
        TaskRequestsClient.claim,
        ClaimTaskRequest {
            agent: agent.to_owned(), task_id: task_id.map(<[u8]>::to_vec).unwrap_or_default(), attachment: 0
        }
    );
    request!(
        /// Claims a task for an attached agent: the shard refuses this once the attachment has ended.
        claim_attached(agent: &str, task_id: &[u8], attachment: u64) -> v1::ClaimTaskReply,
        TaskRequestsClient.claim,
        ClaimTaskRequest { agent: agent.to_owned(), task_id: task_id.to_vec(), attachment: attachment }
    );
    task_request!(
        /// Reports the progress of a claimed task, and the checkpoint from which another holder would go on.
        report_checkpoint(claim: v1::Claim, permille: u32, note: &str, checkpoint: Option<Vec<u8>>),
        Progress.progress,
        ReportProgressRequest {
            claim: Some(claim), permille: permille, note: note.to_owned(), checkpoint: checkpoint
        }
    );
    task_request!(
        /// Reports the progress of a claimed task.
        report_progress(claim: v1::Claim, permille: u32, note: &str),
        Progress.progress,
        ReportProgressRequest { claim: Some(claim), permille: permille, note: note.to_owned(), checkpoint: None }
    );
    task_request!(
        /// Completes a claimed task.
        complete_task(claim: v1::Claim, result: Vec<u8>),
        Complete.complete, CompleteTaskRequest { claim: Some(claim), result: result }
    );
    task_request!(
        /// Gives a claimed task back as failed; `permanent` makes it a dead letter at once.
        fail_task(claim: v1::Claim, reason: &str, permanent: bool),
        Fail.fail,
        FailTaskRequest { claim: Some(claim), reason: reason.to_owned(), permanent: permanent }
    );
    task_request!(
        /// Gives a claimed task back, neither done nor failed.
        release_task(claim: v1::Claim),
        Release.release, ReleaseTaskRequest { claim: Some(claim) }
    );
    task_request!(
        /// Cancels a task.
        cancel_task(task_id: &[u8], reason: &str),
        Cancel.cancel,
        CancelTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: false }
    );
    task_request!(
        /// Discards a dead letter: no operator need look at it. A task that is not a dead letter is left as it is.
        discard_task(task_id: &[u8], reason: &str),
        Cancel.cancel,
        CancelTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: true }
    );
    task_request!(
        /// Makes a task pending again, with all its attempts.
        requeue_task(task_id: &[u8], reason: &str),
        Requeue.requeue,
        RequeueTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: false }
    );
    task_request!(
        /// Makes a dead letter pending again. A task that is not a dead letter is left as it is.
        redrive_task(task_id: &[u8], reason: &str),
        Requeue.requeue,
        RequeueTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: true }
    );

    /// Sends a create whose identity the caller made, as a gateway does that keeps its own retries. A refusal that is
    /// silent about earlier sendings says nothing of an earlier call: a caller that was in doubt stays in doubt.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn send_create(&self, request: v1::CreateTaskRequest) -> Result<v1::TaskReceipt, ClientError> {
        let meta = request.meta.as_ref().filter(|meta| uuid::Uuid::from_slice(&meta.request_id).is_ok());
        let id = meta.map(|meta| RequestName::of(meta).to_string()).ok_or_else(|| {
            ClientError::Endpoint("a request that is to be sent again needs an id of its own".to_owned())
        })?;
        let service = TaskRequestsClient::new(self.service());
        let sending = |request| {
            let mut service = service.clone();
            async move { service.create(request).await }
        };
        send(Asked::First(&id), &request, self.patience(), sending).await
    }

    query!(
        /// Returns one task.
        task(task_id: &[u8], read: Read) -> v1::GetTaskReply,
        TaskQueriesClient.get,
        |shard| v1::GetTaskRequest { read: read_options(shard, read), task_id: task_id.to_vec() }
    );
    query!(
        /// Returns a page of tasks, of these statuses or of all, after an id.
        tasks(statuses: &[v1::TaskStatus], after: &[u8], limit: u32, read: Read) -> v1::ListTasksReply,
        TaskQueriesClient.list,
        |shard| v1::ListTasksRequest {
            read: read_options(shard, read),
            statuses: statuses.iter().map(|status| i32::from(*status)).collect(),
            after: after.to_vec(),
            limit: Some(limit),
        }
    );
    query!(
        /// Returns a page of a task's transitions, after an index.
        history(task_id: &[u8], after_index: u64, limit: u32, read: Read) -> v1::TaskHistoryReply,
        TaskQueriesClient.history,
        |shard| v1::TaskHistoryRequest {
            read: read_options(shard, read),
            task_id: task_id.to_vec(),
            after_index,
            limit: Some(limit),
        }
    );

    /// Streams every transition from an index on, then new ones as the node's replica applies them. Without an index:
    /// only new ones.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch_tasks(
        &self,
        feeds: &[&str],
        from_index: Option<u64>,
    ) -> Result<Streaming<v1::TaskEvent>, ClientError> {
        let feeds = feeds.iter().map(|feed| (*feed).to_owned()).collect();
        let request = v1::WatchTasksRequest { shard: self.shard().0, feeds, from_index };
        let mut service = TaskQueriesClient::new(self.service());
        service.watch(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }
}
