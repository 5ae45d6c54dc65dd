//! An agent: attached to its node, given work, and fenced when its lease ends.

mod commands;
mod hearing;
mod holdings;
mod saying;
mod stream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use skep_proto::v1;
use skep_protocol::limits;
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::{Client, Read};
use crate::error::ClientError;
pub use commands::{CommandOffers, NotStarted, OfferedCommand, RunningCommand, StartLeft};
pub use holdings::{ClaimKey, Granted, Holdings};

/// How long a claim that is committed waits for its grant before the client reads the task.
const GRANT_LOOK_AFTER: Duration = Duration::from_secs(2);

/// The milliseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
fn boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// What an agent attaches as.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The agent's id, unique in its site.
    pub agent: String,
    /// What the agent can do.
    pub role: v1::Role,
    /// The lease that the agent asks for; the node's default if none.
    pub lease_ttl: Option<Duration>,
    /// The agent's position when it attaches; none if it is not known.
    pub place: Option<v1::Position>,
    /// How long the client tries to attach at first, and again while another session has the agent. An agent that was
    /// attached once waits for its node for as long as that takes.
    pub patience: Duration,
}

impl AgentOptions {
    /// An agent with this id and role, and defaults for the rest.
    pub fn new(agent: &str, role: v1::Role) -> Self {
        let patience = Duration::from_secs(60);
        Self { agent: agent.to_owned(), role, lease_ttl: None, place: None, patience }
    }
}

/// Why an agent must stop work on something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The lease has ended on the agent's own clock.
    #[error("the lease ended {ago_ms} ms ago; stop: the task may have another holder")]
    LeaseEnded {
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// The shard took the claim back.
    #[error("the claim was taken back; stop")]
    ClaimLost,
}

/// The rest of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// When that was read, in milliseconds of CLOCK_BOOTTIME.
    pub at_ms: u64,
    /// When the lease ends, in milliseconds of CLOCK_BOOTTIME.
    pub until_ms: u64,
}

/// The client calls this at every renewal of a lease.
pub type OnRenewal = Box<dyn Fn(LeaseLeft) + Send + Sync>;

/// How an agent stands with its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AgentStatus {
    /// The agent is not attached; the client tries to attach it.
    #[default]
    Attaching,
    /// The agent is attached.
    Attached {
        /// The number of the attachment.
        attachment: u64,
    },
    /// The agent has ended: it was detached, or refused for good.
    Ended(Option<ClientError>),
}

pub(crate) struct Shared {
    options: AgentOptions,
    session: Vec<u8>,
    shard: u32,
    holdings: std::sync::Mutex<Holdings>,
    place: watch::Sender<Option<v1::Position>>,
    status: watch::Sender<AgentStatus>,
    /// How many grants the application waits for. The client gives them as credits under every attachment.
    wanted: watch::Sender<u32>,
    leaving: watch::Sender<bool>,
    /// The callback for renewals of the lease; none if the application wants none.
    renewals: Option<OnRenewal>,
    desk: commands::CommandDesk,
}

impl Shared {
    fn holdings(&self) -> std::sync::MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An agent attached to a node. Dropping it lets its lease run out.
///
/// The client keeps the connection up: after a restart of the node it attaches the agent again, and takes up what the
/// agent still holds.
pub struct AttachedAgent {
    client: Client,
    shared: Arc<Shared>,
    grants: mpsc::Receiver<Grant>,
    /// Where a grant goes for which no caller waits.
    queue: mpsc::Sender<Grant>,
    /// The commands that the node offers, until the application takes commands.
    offered: Option<Offered>,
    task: tokio::task::JoinHandle<()>,
}

/// A task that the agent holds. Dropping one that has not ended gives it back.
///
/// Call [`check`](Self::check) before every step that has an effect in the world, with nothing that takes time in
/// between: it says whether the agent still owns the claim.
pub struct Assignment {
    /// The task.
    pub task: v1::Task,
    client: Client,
    shared: Arc<Shared>,
    key: ClaimKey,
    /// Whether the agent has ended the claim itself, or knows that it was lost.
    ended: AtomicBool,
}

impl AttachedAgent {
    /// Attaches an agent, and waits until it is attached. The client calls `renewals` at every renewal of its lease,
    /// before the renewal counts.
    ///
    /// # Errors
    /// [`ClientError::NotDone`] if the node or the shard refused it.
    pub async fn attach(
        client: &Client,
        options: AgentOptions,
        renewals: Option<OnRenewal>,
    ) -> Result<Self, ClientError> {
        let (queue, grants) = mpsc::channel(limits::CONCURRENT_CLAIMS_MAX as usize);
        let (desk, offered) = commands::CommandDesk::new();
        let shared = Arc::new(Shared {
            desk,
            place: watch::channel(options.place).0,
            options,
            session: uuid::Uuid::now_v7().as_bytes().to_vec(),
            shard: client.shard().0,
            holdings: std::sync::Mutex::default(),
            status: watch::channel(AgentStatus::default()).0,
            wanted: watch::channel(0).0,
            leaving: watch::channel(false).0,
            renewals,
        });
        let task = tokio::spawn(stream::run(client.clone(), Arc::clone(&shared), queue.clone()));
        let mut status = shared.status.subscribe();
        let agent = Self { client: client.clone(), shared, grants, queue, offered: Some(offered), task };
        let settled = status.wait_for(|status| *status != AgentStatus::Attaching).await;
        match settled.map(|status| status.clone()) {
            Ok(AgentStatus::Ended(Some(error))) => Err(error),
            Ok(AgentStatus::Ended(None)) | Err(_) => Err(ClientError::Endpoint("the agent was ended".to_owned())),
            Ok(AgentStatus::Attached { .. } | AgentStatus::Attaching) => Ok(agent),
        }
    }

    /// Returns the next task that the orchestrator assigns; asks for one if none is on its way. None when the agent has
    /// ended. Safe to drop and call again.
    pub async fn next_task(&mut self) -> Option<Assignment> {
        if let Ok((key, task)) = self.grants.try_recv() {
            return Some(Assignment::new(&self.client, &self.shared, key, *task));
        }
        self.shared.wanted.send_if_modified(|wanted| {
            let none = *wanted == 0;
            *wanted = (*wanted).max(1);
            none
        });
        let mut status = self.shared.status.subscribe();
        tokio::select! {
            biased;
            grant = self.grants.recv() => {
                grant.map(|(key, task)| Assignment::new(&self.client, &self.shared, key, *task))
            }
            _ = status.wait_for(|status| matches!(status, AgentStatus::Ended(_))) => None,
        }
    }

    /// Takes a task by name: the first committed claim wins, and the other agents are told which agent has it.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown. A claim that is committed in spite of the error comes with
    /// [`next_task`](Self::next_task).
    pub async fn claim(&self, task_id: &[u8]) -> Result<Assignment, ClientError> {
        let AgentStatus::Attached { attachment } = *self.shared.status.borrow() else {
            return Err(ClientError::Endpoint("the agent is not attached now".to_owned()));
        };
        let granted = self.shared.holdings().expect(task_id);
        let mut expecting = Expecting { agent: self, task_id, granted };
        let claimed = self.client.claim_attached(&self.shared.options.agent, task_id, attachment).await;
        if let Err(error) = claimed {
            // The task may be the agent's own all the same: the answer was lost, or the orchestrator assigned the task
            // first.
            let (key, task) = expecting.granted.try_recv().map_err(|_| error)?;
            return Ok(Assignment::new(&self.client, &self.shared, key, *task));
        }
        let (key, task) = self.await_grant(&mut expecting.granted, task_id).await?;
        Ok(Assignment::new(&self.client, &self.shared, key, *task))
    }

    /// Waits for the grant of a claim that is committed. If the shard took the claim back before the node heard of it,
    /// no grant comes.
    async fn await_grant(&self, granted: &mut oneshot::Receiver<Grant>, task_id: &[u8]) -> Result<Grant, ClientError> {
        let over = |last: &str| {
            let (request_id, last) = (String::new(), last.to_owned());
            ClientError::Unknown { request_id, last, too_late: false }
        };
        loop {
            match tokio::time::timeout(GRANT_LOOK_AFTER, &mut *granted).await {
                Ok(Ok(grant)) => return Ok(grant),
                Ok(Err(_)) => return Err(over("the claim is committed, and was lost before it was told")),
                Err(_) => {}
            }
            let task = self.client.task(task_id, Read::Linearizable).await?.task.unwrap_or_default();
            if task.claimed_by != self.shared.options.agent {
                return Err(over("the claim is committed, and was taken back before it was told"));
            }
        }
    }

    /// Takes commands from here on, as an agent of these groups. None if the agent does already.
    pub fn take_commands(&mut self, groups: &[&str]) -> Option<CommandOffers> {
        Some(CommandOffers::new(Arc::clone(&self.shared), self.offered.take()?, groups))
    }

    /// Sets the agent's position, for policies that assign by distance.
    pub fn set_place(&self, place: v1::Position) {
        self.shared.place.send_replace(Some(place));
    }

    /// Follows how the agent stands with its node.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.shared.status.subscribe()
    }

    /// Gives back everything that the agent holds, and detaches it. Call it when the agent has stopped its work.
    pub async fn detach(self) {
        self.shared.leaving.send_replace(true);
        let mut status = self.shared.status.subscribe();
        let ended = status.wait_for(|status| matches!(status, AgentStatus::Ended(_)));
        let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
    }
}

/// Waits for the grant of a task that a caller claimed by name. A grant that comes when no caller waits goes to
/// [`next_task`](AttachedAgent::next_task).
struct Expecting<'a> {
    agent: &'a AttachedAgent,
    task_id: &'a [u8],
    granted: oneshot::Receiver<Grant>,
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.agent.shared.holdings().forget_expected(self.task_id);
        if let Ok(grant) = self.granted.try_recv() {
            let _ = self.agent.queue.try_send(grant);
        }
    }
}

impl Drop for AttachedAgent {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.status.send_if_modified(|status| {
            let ends = !matches!(status, AgentStatus::Ended(_));
            if ends {
                *status = AgentStatus::Ended(None);
            }
            ends
        });
    }
}

impl Assignment {
    fn new(client: &Client, shared: &Arc<Shared>, key: ClaimKey, task: v1::Task) -> Self {
        Self { task, client: client.clone(), shared: Arc::clone(shared), key, ended: AtomicBool::new(false) }
    }

    /// The claim's fencing token: give it to everything that the task has an effect on.
    pub fn epoch(&self) -> u64 {
        self.key.epoch
    }

    /// The claim, as the API names it.
    pub fn claim(&self) -> v1::Claim {
        let agent = self.shared.options.agent.clone();
        v1::Claim { task_id: self.task.id.clone(), agent, epoch: self.key.epoch }
    }

    /// Checks that the agent still owns the claim.
    ///
    /// # Errors
    /// [`Fenced`] says why the agent must stop.
    pub fn check(&self) -> Result<LeaseLeft, Fenced> {
        self.shared.holdings().check(&self.key, boot_ms())
    }

    /// Waits until the shard takes the claim back, or its lease ends.
    pub async fn fenced(&self) -> Fenced {
        let mut changes = self.shared.holdings().changes();
        loop {
            changes.borrow_and_update();
            let left = match self.check() {
                Ok(left) => left,
                Err(why) => return why,
            };
            let wait = Duration::from_millis(left.until_ms.saturating_sub(left.at_ms).max(1));
            let _ = tokio::time::timeout(wait, changes.changed()).await;
        }
    }

    /// Waits until the lease runs again after it had ended, and the agent still owns the claim.
    ///
    /// # Errors
    /// [`Fenced::ClaimLost`] if the agent does not own it.
    pub async fn regained(&self) -> Result<LeaseLeft, Fenced> {
        let mut changes = self.shared.holdings().changes();
        loop {
            changes.borrow_and_update();
            match self.check() {
                Err(Fenced::LeaseEnded { .. }) => {}
                decided => return decided,
            }
            if changes.changed().await.is_err() {
                return Err(Fenced::ClaimLost);
            }
        }
    }

    fn note_end(&self, result: Result<v1::TaskReceipt, ClientError>) -> Result<v1::TaskReceipt, ClientError> {
        if result.is_ok() {
            self.ended.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Reports the progress of the work, and the checkpoint from which another holder would go on.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn progress(
        &self,
        permille: u32,
        note: &str,
        checkpoint: Option<Vec<u8>>,
    ) -> Result<v1::TaskReceipt, ClientError> {
        self.client.report_checkpoint(self.claim(), permille, note, checkpoint).await
    }

    /// Completes the task.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn complete(&self, result: Vec<u8>) -> Result<v1::TaskReceipt, ClientError> {
        self.note_end(self.client.complete_task(self.claim(), result).await)
    }

    /// Gives the task back as failed; `permanent` makes it a dead letter at once.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown.
    pub async fn fail(&self, reason: &str, permanent: bool) -> Result<v1::TaskReceipt, ClientError> {
        self.note_end(self.client.fail_task(self.claim(), reason, permanent).await)
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        let was_held = self.shared.holdings().let_go(&self.key);
        let ended = self.ended.load(Ordering::Relaxed);
        if let (true, false, Ok(runtime)) = (was_held, ended, tokio::runtime::Handle::try_current()) {
            let (client, claim) = (self.client.clone(), self.claim());
            let shared = Arc::downgrade(&self.shared);
            runtime.spawn(async move {
                // This goes on until the shard has decided about the claim, or the agent is gone: then its lease ends.
                // Each attempt is a request of its own, since giving back the same claim twice does nothing twice.
                while client.release_task(claim.clone()).await.is_err_and(|error| error.leaves_open())
                    && shared.strong_count() > 0
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
}

/// Commands on their way to the agent's software, each with the channel of its later news.
type Offered = mpsc::Receiver<(v1::Command, mpsc::Receiver<v1::command_news::News>)>;
/// A task on its way to the agent's software.
type Grant = (ClaimKey, Box<v1::Task>);
/// The channel of a grant to the caller that claimed the task by name.
type Expected = oneshot::Sender<Grant>;
