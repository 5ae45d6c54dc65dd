//! The client.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::agent_commands_client::AgentCommandsClient;
use skep_proto::v1::agent_queries_client::AgentQueriesClient;
use skep_proto::v1::node_queries_client::NodeQueriesClient;
use skep_proto::v1::shard_commands_client::ShardCommandsClient;
use skep_proto::v1::shard_queries_client::ShardQueriesClient;
use skep_proto::v1::task_command::Command;
use skep_proto::v1::task_commands_client::TaskCommandsClient;
use skep_proto::v1::task_queries_client::TaskQueriesClient;
use skep_proto::v1::topics_client::TopicsClient;
use skep_protocol::authority::SignedFirst;
use skep_protocol::ids::{Genesis, ShardId};
use skep_protocol::limits;
use skep_protocol::statement::Place;
use skep_protocol::time::LogInstant;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::call::{Asked, Patience, send};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::pipe::Pipe;
use crate::request::RequestName;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The shard that its calls are for.
    pub shard: ShardId,
    /// How long a call is tried in all. One that comes to be in doubt is sent again for as long as one sending may take at
    /// least: by then it may be known.
    pub patience: Duration,
    /// How long one sending may take.
    pub attempt_timeout: Duration,
    /// Whether task commands share one stream, which costs less each, or are calls of their own.
    pub pipelined: bool,
    /// The shard's genesis, if it is known. What an operator signs is for the shard that the node names: one that lies names another
    /// one, and has a command signed that is good there. With this a client says [`ClientError::AnotherShard`] instead.
    pub genesis: Option<Genesis>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shard: ShardId::FIRST,
            patience: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(5),
            pipelined: false,
            genesis: None,
        }
    }
}

/// How a query is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// With everything that was acknowledged before.
    #[default]
    Linearizable,
    /// From the node's replica as it is, with its age.
    Stale,
}

pub(crate) type Service = Channel;

/// A client of one node. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    service: Service,
    settings: Settings,
    /// The one request that its commands are, if they are.
    request: Option<v1::RequestMeta>,
    /// Whether that one was sent before, by somebody who does not know what became of it.
    sent_before: bool,
    /// Opened when it is first needed.
    pipe: Arc<OnceLock<Pipe>>,
    /// The shard's clock as it was last heard, and when.
    clock: Arc<Mutex<Option<(LogInstant, Instant)>>>,
    /// Where statements hold, once somebody asked.
    place: Arc<Mutex<Option<Place>>>,
}

macro_rules! command {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty,
     $service:ident . $method:ident, $message:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown.
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let meta = self.meta().await?;
            let id = RequestName::of(&meta).to_string();
            let message = v1::$message { meta: Some(meta), $($field: $value),* };
            let service = $service::new(self.service());
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            let result = send(self.asked(&id), &message, self.patience(), sending).await;
            self.mind_shard(&result);
            result
        }
    };
}

pub(crate) use command;

macro_rules! task_command {
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
                let pipe = self.pipe.get_or_init(|| Pipe::open(self.service.clone()));
                let sending = |request: Request<v1::$message>| {
                    let (pipe, request_id) = (pipe.clone(), request_id.clone());
                    async move { pipe.send(request_id, Command::$variant(request.into_inner())).await }
                };
                send(self.asked(&id), &message, self.patience(), sending).await
            } else {
                let service = TaskCommandsClient::new(self.service.clone());
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

macro_rules! query {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty,
     $service:ident . $method:ident, $message:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`].
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let shard = self.shard().0;
            let message = ($message)(shard);
            let service = $service::new(self.service()).max_decoding_message_size(skep_protocol::limits::API_MESSAGE_BYTES_MAX);
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            send(crate::call::Asked::Query, &message, self.patience(), sending).await
        }
    };
}

pub(crate) use query;

macro_rules! member_change {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty, $method:ident, $message:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown; the shard's status shows which.
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let message = ($message)(self.settings.shard.0);
            let service = ShardCommandsClient::new(self.service.clone());
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            send(Asked::First(stringify!($name)), &message, MEMBER_PATIENCE, sending).await
        }
    };
}

/// A new voter catches up before it counts. What is in doubt after that is shown by the shard's status.
const MEMBER_PATIENCE: Patience =
    Patience { total: Duration::from_secs(90), each: Duration::from_secs(90), in_doubt: Duration::ZERO };

pub(crate) fn read_options(shard: u32, read: Read) -> Option<v1::ReadOptions> {
    Some(v1::ReadOptions { shard, stale: read == Read::Stale })
}

impl Client {
    /// A client of the node at an endpoint. Connects when it is used.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint makes no sense.
    pub fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::with_settings(endpoint, Settings::default())
    }

    /// The same, with settings of its own.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint makes no sense.
    pub fn with_settings(endpoint: Endpoint, settings: Settings) -> Result<Self, ClientError> {
        let service = endpoint.channel()?;
        let (pipe, clock, place) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { service, settings, request: None, sent_before: false, pipe, clock, place })
    }

    /// The shard that its calls are for.
    pub fn shard(&self) -> ShardId {
        self.settings.shard
    }

    /// The genesis of the shard that it is for, if it was told.
    pub fn genesis(&self) -> Option<Genesis> {
        self.settings.genesis
    }

    /// Where statements hold that are signed for the shard: its site, its number, and the random bytes with which it began. Asked
    /// once.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::AnotherShard`] or [`ClientError::AnotherNumber`] if it is not the one that the client is for.
    pub async fn place(&self) -> Result<Place, ClientError> {
        let known = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let reply = self.shard_place(Read::Linearizable).await?;
        let place = skep_proto::convert::place(&reply).map_err(|error| ClientError::Endpoint(error.to_string()))?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        Ok(place)
    }

    pub(crate) async fn open_attach(
        &self,
        messages: ReceiverStream<v1::AgentMessage>,
    ) -> Result<Streaming<v1::NodeMessage>, Status> {
        AgentCommandsClient::new(self.service.clone()).attach(messages).await.map(tonic::Response::into_inner)
    }

    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    pub(crate) fn patience(&self) -> Patience {
        let Settings { patience: total, attempt_timeout: each, .. } = self.settings;
        Patience { total, each, in_doubt: each }
    }

    /// What a command of this name is.
    pub(crate) fn asked<'a>(&self, name: &'a str) -> Asked<'a> {
        if self.sent_before { Asked::Again(name) } else { Asked::First(name) }
    }

    /// A client whose next command is the request of this name, sent for the first time or again; a new one if there is no
    /// name. It is refused so long after it was first sent, in milliseconds. A client for one command: another one under the
    /// same name is refused.
    ///
    /// What is sent again is in doubt until the shard says what became of it: if that is refused as too old, or nobody can be
    /// asked, it is [`ClientError::Unknown`].
    ///
    /// # Errors
    /// [`ClientError`] if the shard's clock cannot be told.
    pub async fn under(&self, name: Option<RequestName>, valid_ms: u64) -> Result<Self, ClientError> {
        let known = name.and_then(|name| name.first_sent);
        let first_sent = match known {
            Some(first_sent) => first_sent,
            None => self.shard_clock().await?,
        };
        let id = name.map_or_else(uuid::Uuid::now_v7, |name| name.id);
        let request = v1::RequestMeta {
            request_id: id.as_bytes().to_vec(),
            shard: self.settings.shard.0,
            first_sent: first_sent.raw(),
            deadline: first_sent.plus_ms(valid_ms).raw(),
        };
        Ok(Self { request: Some(request), sent_before: known.is_some(), ..self.clone() })
    }

    /// The identity of a new request, or of the one that this client's commands are.
    pub(crate) async fn meta(&self) -> Result<v1::RequestMeta, ClientError> {
        if let Some(request) = &self.request {
            return Ok(request.clone());
        }
        let first_sent = self.shard_clock().await?;
        let deadline = first_sent.plus_ms(self.valid_ms());
        Ok(v1::RequestMeta {
            request_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            shard: self.settings.shard.0,
            first_sent: first_sent.raw(),
            deadline: deadline.raw(),
        })
    }

    /// How long a request is taken, in milliseconds: for as long as it is sent, so that the last sending tells as much as the
    /// first one.
    fn valid_ms(&self) -> u64 {
        let Patience { total, in_doubt, .. } = self.patience();
        let sent_for_ms = u64::try_from(total.saturating_add(in_doubt).as_millis()).unwrap_or(u64::MAX);
        sent_for_ms.clamp(limits::REQUEST_DEADLINE_MS_DEFAULT, limits::REQUEST_DEADLINE_MS_MAX)
    }

    /// The shard's clock: asked once a minute, and counted on from there. Counting stops short rather than running
    /// ahead, so that no request seems to come from the future.
    pub(crate) async fn shard_clock(&self) -> Result<LogInstant, ClientError> {
        const ASK_AGAIN: Duration = Duration::from_secs(60);
        let known = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((clock, at)) = known.filter(|(_, at)| at.elapsed() < ASK_AGAIN) {
            let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
            return Ok(clock.plus_ms(since - since / 1_000));
        }
        let clock = LogInstant::from_raw(self.clock().await?.clock);
        // Counted from the arrival of the answer, it stays behind the shard's own.
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock, Instant::now()));
        Ok(clock)
    }

    /// Forgets the shard's clock when it turned out to be wrong (the machine slept, or the shard began a new era), and where
    /// statements hold when the shard was made anew, so that the next request asks for it.
    pub(crate) fn mind_shard<T>(&self, result: &Result<T, ClientError>) {
        let Err(error) = result else { return };
        if error.is_of_another_shard() {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        // What is in doubt may have been refused for its clock too.
        if error.is_of_another_clock() || matches!(error, ClientError::Unknown { .. }) {
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    task_command!(
        /// Adds a task; its id is that of the request.
        create_task(spec: v1::TaskSpec),
        Create.create, CreateTaskRequest { task_id: Vec::new(), spec: Some(spec) }
    );
    command!(
        /// Takes a task; without one, the most urgent that suits the agent. The reply is empty if none waits.
        claim_task(agent: &str, task_id: Option<&[u8]>) -> v1::ClaimTaskReply,
        TaskCommandsClient.claim,
        ClaimTaskRequest {
            agent: agent.to_owned(), task_id: task_id.map(<[u8]>::to_vec).unwrap_or_default(), attachment: 0
        }
    );
    command!(
        /// Takes a task for an attached agent: refused once the attachment has ended.
        claim_attached(agent: &str, task_id: &[u8], attachment: u64) -> v1::ClaimTaskReply,
        TaskCommandsClient.claim,
        ClaimTaskRequest { agent: agent.to_owned(), task_id: task_id.to_vec(), attachment: attachment }
    );
    task_command!(
        /// Says how far a claimed task has come, and where another holder would go on.
        report_checkpoint(claim: v1::Claim, permille: u32, note: &str, checkpoint: Option<Vec<u8>>),
        Progress.progress,
        ReportProgressRequest {
            claim: Some(claim), permille: permille, note: note.to_owned(), checkpoint: checkpoint
        }
    );
    task_command!(
        /// Says how far a claimed task has come.
        report_progress(claim: v1::Claim, permille: u32, note: &str),
        Progress.progress,
        ReportProgressRequest { claim: Some(claim), permille: permille, note: note.to_owned(), checkpoint: None }
    );
    task_command!(
        /// Finishes a claimed task.
        complete_task(claim: v1::Claim, result: Vec<u8>),
        Complete.complete, CompleteTaskRequest { claim: Some(claim), result: result }
    );
    task_command!(
        /// Gives a claimed task back as failed; `permanent` makes it a dead letter at once.
        fail_task(claim: v1::Claim, reason: &str, permanent: bool),
        Fail.fail,
        FailTaskRequest { claim: Some(claim), reason: reason.to_owned(), permanent: permanent }
    );
    task_command!(
        /// Gives a claimed task back, neither done nor failed.
        release_task(claim: v1::Claim),
        Release.release, ReleaseTaskRequest { claim: Some(claim) }
    );
    task_command!(
        /// Calls a task off.
        cancel_task(task_id: &[u8], reason: &str),
        Cancel.cancel,
        CancelTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: false }
    );
    task_command!(
        /// Nobody need look at a dead letter any more. A task that is none is left as it is.
        discard_task(task_id: &[u8], reason: &str),
        Cancel.cancel,
        CancelTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: true }
    );
    task_command!(
        /// Makes a task pending again, with all its attempts.
        requeue_task(task_id: &[u8], reason: &str),
        Requeue.requeue,
        RequeueTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: false }
    );
    task_command!(
        /// Makes a dead letter pending again. A task that is none is left as it is.
        redrive_task(task_id: &[u8], reason: &str),
        Requeue.requeue,
        RequeueTaskRequest { task_id: task_id.to_vec(), reason: reason.to_owned(), only_dead_letter: true }
    );
    command!(
        /// Makes an agent known, or changes its role.
        register_agent(agent: &str, role: v1::Role) -> v1::AgentReceipt,
        AgentCommandsClient.register, RegisterAgentRequest { agent: agent.to_owned(), role: Some(role) }
    );
    command!(
        /// Forgets an agent that holds nothing.
        remove_agent(agent: &str) -> v1::AgentReceipt,
        AgentCommandsClient.remove, RemoveAgentRequest { agent: agent.to_owned() }
    );

    /// Sends a create whose identity the caller made, as a gateway does that keeps its own retries. A refusal that is silent
    /// about earlier sendings says nothing of those of an earlier call: whoever was in doubt stays so.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn send_create(&self, request: v1::CreateTaskRequest) -> Result<v1::TaskReceipt, ClientError> {
        let meta = request.meta.as_ref().filter(|meta| uuid::Uuid::from_slice(&meta.request_id).is_ok());
        let id = meta.map(|meta| RequestName::of(meta).to_string()).ok_or_else(|| {
            ClientError::Endpoint("a request that is to be sent again needs an id of its own".to_owned())
        })?;
        let service = TaskCommandsClient::new(self.service.clone());
        let sending = |request| {
            let mut service = service.clone();
            async move { service.create(request).await }
        };
        send(Asked::First(&id), &request, self.patience(), sending).await
    }

    query!(
        /// One task.
        task(task_id: &[u8], read: Read) -> v1::GetTaskReply,
        TaskQueriesClient.get,
        |shard| v1::GetTaskRequest { read: read_options(shard, read), task_id: task_id.to_vec() }
    );
    query!(
        /// A page of tasks, of some statuses or of all, after an id.
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
        /// A page of a task's transitions, after an index.
        history(task_id: &[u8], after_index: u64, limit: u32, read: Read) -> v1::TaskHistoryReply,
        TaskQueriesClient.history,
        |shard| v1::TaskHistoryRequest {
            read: read_options(shard, read),
            task_id: task_id.to_vec(),
            after_index,
            limit: Some(limit),
        }
    );
    query!(
        /// A page of agents, after an id.
        agents(after: &str, limit: u32, read: Read) -> v1::ListAgentsReply,
        AgentQueriesClient.list,
        |shard| v1::ListAgentsRequest { read: read_options(shard, read), after: after.to_owned(), limit: Some(limit) }
    );
    query!(
        /// The shard as the node sees it.
        shard_status() -> v1::ShardStatusReply,
        ShardQueriesClient.status, |shard| v1::ShardStatusRequest { shard }
    );
    query!(
        /// The node as it sees itself.
        node_status() -> v1::NodeStatusReply,
        NodeQueriesClient.status, |_| v1::NodeStatusRequest {}
    );
    query!(
        /// The shard's log clock.
        clock() -> v1::ClockReply,
        NodeQueriesClient.clock, |shard| v1::ClockRequest { shard }
    );
    member_change!(
        /// Creates the shard with these voters. `genesis` is random, and `first` the shard's first operator, which has signed
        /// that it is that: without one it has no operators, ever.
        init_shard(voters: Vec<String>, genesis: Genesis, first: Option<&SignedFirst>) -> v1::InitShardReply,
        init, |shard| v1::InitShardRequest {
            shard,
            voters: voters.clone(),
            genesis: genesis.as_bytes().to_vec(),
            operator: first.map(skep_proto::convert::signed_to_proto),
        }
    );
    member_change!(
        /// Hands the lead to a voter; empty for the most advanced other one.
        transfer_leader(to: &str) -> v1::TransferLeaderReply,
        transfer_leader, |shard| v1::TransferLeaderRequest { shard, to: to.to_owned() }
    );
    member_change!(
        /// Makes a node a voter under its present incarnation.
        add_voter(node: &str) -> v1::ChangeVotersReply,
        add_voter, |shard| v1::AddVoterRequest { shard, node: node.to_owned() }
    );
    member_change!(
        /// Takes a voter out of the shard.
        remove_voter(node: &str) -> v1::ChangeVotersReply,
        remove_voter, |shard| v1::RemoveVoterRequest { shard, node: node.to_owned() }
    );

    /// Every transition from an index on, then new ones as they are applied. None: only new ones.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses; begin again after the last index seen.
    pub async fn watch_tasks(
        &self,
        topics: &[&str],
        from_index: Option<u64>,
    ) -> Result<Streaming<v1::TaskEvent>, ClientError> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let request = v1::WatchTasksRequest { shard: self.settings.shard.0, topics, from_index };
        let mut service = TaskQueriesClient::new(self.service.clone());
        service.watch(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }

    /// Says something on a topic: best effort, latest wins.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish(&self, publication: v1::PublishRequest) -> Result<(), ClientError> {
        let mut service = TopicsClient::new(self.service.clone());
        service.publish(publication).await.map(drop).map_err(|status| definite(&status))
    }

    /// Says what comes out of a channel until it is closed; how much the node took.
    ///
    /// # Errors
    /// [`ClientError`] if the node went away meanwhile.
    pub async fn publish_all(&self, publications: mpsc::Receiver<v1::PublishRequest>) -> Result<u64, ClientError> {
        let mut service = TopicsClient::new(self.service.clone());
        let published = service.publish_stream(ReceiverStream::new(publications)).await;
        published.map(|reply| reply.into_inner().taken).map_err(|status| definite(&status))
    }

    /// The latest value of every source on these topics, with its age, then new ones as the node hears them.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses.
    pub async fn subscribe(&self, topics: &[&str]) -> Result<Streaming<v1::TopicValue>, ClientError> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let mut service = TopicsClient::new(self.service.clone());
        let subscribed = service.subscribe(v1::SubscribeRequest { topics }).await;
        subscribed.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }

    /// Everything that the node's replica holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn dump_shard(&self) -> Result<Streaming<v1::ShardDumpReply>, ClientError> {
        let request = v1::ShardDumpRequest { shard: self.settings.shard.0 };
        let mut service = ShardQueriesClient::new(self.service.clone());
        service.dump(request).await.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }
}

/// What a failed query means: it changes nothing, so nothing can be in doubt.
pub(crate) fn definite(status: &Status) -> ClientError {
    ClientError::of_stream(status)
}
