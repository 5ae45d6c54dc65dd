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

/// How long a committed claim waits for its grant before the task is looked at.
const GRANT_LOOK_AFTER: Duration = Duration::from_secs(2);

/// Milliseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
fn boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Who an agent is.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Its id, unique in its site.
    pub agent: String,
    /// What it can do.
    pub role: v1::Role,
    /// The lease it wants; the node's default if none.
    pub lease_ttl: Option<Duration>,
    /// Where it is at first.
    pub place: Option<v1::Position>,
    /// How long attaching is tried at first, and again while another run of the software has the agent. An agent that
    /// was attached once waits for its node for as long as that takes.
    pub patience: Duration,
}

impl AgentOptions {
    /// An agent with a role and nothing else of its own.
    pub fn new(agent: &str, role: v1::Role) -> Self {
        let patience = Duration::from_secs(60);
        Self { agent: agent.to_owned(), role, lease_ttl: None, place: None, patience }
    }
}

/// Why an agent must not go on with something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The lease has ended on the agent's own clock.
    #[error("the lease ended {ago_ms} ms ago; stop: the task may have another holder")]
    LeaseEnded {
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// The claim was taken back.
    #[error("the claim was taken back; stop")]
    ClaimLost,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// When it was looked at, in milliseconds of CLOCK_BOOTTIME.
    pub at_ms: u64,
    /// When it ends, in the same.
    pub until_ms: u64,
}

/// Is told of every renewal of a lease.
pub type OnRenewal = Box<dyn Fn(LeaseLeft) + Send + Sync>;

/// Where an agent stands with its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AgentStatus {
    /// Not attached yet, or not any more: it is being tried.
    #[default]
    Attaching,
    /// Attached.
    Attached {
        /// Under which attachment.
        attachment: u64,
    },
    /// Over.
    Ended(Option<ClientError>),
}

pub(crate) struct Shared {
    options: AgentOptions,
    session: Vec<u8>,
    shard: u32,
    holdings: std::sync::Mutex<Holdings>,
    place: watch::Sender<Option<v1::Position>>,
    status: watch::Sender<AgentStatus>,
    /// How many grants the application waits for. Given anew as credits with every attachment.
    wanted: watch::Sender<u32>,
    leaving: watch::Sender<bool>,
    /// Who keeps a record of every renewal.
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
/// The connection is kept up by itself: a node that restarts is attached to again, and what is still held is taken up.
pub struct AttachedAgent {
    client: Client,
    shared: Arc<Shared>,
    grants: mpsc::Receiver<Grant>,
    /// Where a grant goes that nobody waits for any more.
    queue: mpsc::Sender<Grant>,
    /// Until commands are taken.
    offered: Option<Offered>,
    task: tokio::task::JoinHandle<()>,
}

/// A task that the agent holds. Dropping one that has not ended gives it back.
///
/// Before every step that has an effect in the world, and with nothing that takes time in between, call
/// [`check`](Self::check): it says whether the claim is still the agent's own.
pub struct Assignment {
    /// What is to be done.
    pub task: v1::Task,
    client: Client,
    shared: Arc<Shared>,
    key: ClaimKey,
    /// Whether the claim has ended with the agent's knowledge.
    ended: AtomicBool,
}

impl AttachedAgent {
    /// Attaches an agent, and waits until it is. `renewals` is told of every renewal of its lease, before it counts.
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

    /// The next task that the orchestrator assigns; asks for one if none is on its way. None when the agent is over.
    /// Safe to drop and call again.
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

    /// Takes a task by name: the first committed claim wins, and the others are told who has it.
    ///
    /// # Errors
    /// [`ClientError`]: not done, or unknown. A claim that was committed after all comes with
    /// [`next_task`](Self::next_task).
    pub async fn claim(&self, task_id: &[u8]) -> Result<Assignment, ClientError> {
        let AgentStatus::Attached { attachment } = *self.shared.status.borrow() else {
            return Err(ClientError::Endpoint("the agent is not attached now".to_owned()));
        };
        let granted = self.shared.holdings().expect(task_id);
        let mut expecting = Expecting { agent: self, task_id, granted };
        let claimed = self.client.claim_attached(&self.shared.options.agent, task_id, attachment).await;
        if let Err(error) = claimed {
            // It may be the agent's own all the same: by an answer that was lost, or because it was assigned first.
            let (key, task) = expecting.granted.try_recv().map_err(|_| error)?;
            return Ok(Assignment::new(&self.client, &self.shared, key, *task));
        }
        let (key, task) = self.await_grant(&mut expecting.granted, task_id).await?;
        Ok(Assignment::new(&self.client, &self.shared, key, *task))
    }

    /// Waits for the grant of a claim that is committed. It may have been taken back before the node heard of it: then
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

    /// Takes commands from now on, as an agent of these groups. None if it does already.
    pub fn take_commands(&mut self, groups: &[&str]) -> Option<CommandOffers> {
        Some(CommandOffers::new(Arc::clone(&self.shared), self.offered.take()?, groups))
    }

    /// Says where the agent is, for policies that assign by distance.
    pub fn set_place(&self, place: v1::Position) {
        self.shared.place.send_replace(Some(place));
    }

    /// Follows where the agent stands with its node.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.shared.status.subscribe()
    }

    /// Gives back everything that is held, and detaches. To be called when the agent has stopped working.
    pub async fn detach(self) {
        self.shared.leaving.send_replace(true);
        let mut status = self.shared.status.subscribe();
        let ended = status.wait_for(|status| matches!(status, AgentStatus::Ended(_)));
        let _ = tokio::time::timeout(Duration::from_secs(5), ended).await;
    }
}

/// Waits for the grant of a task that was claimed by name. A grant that comes when nobody waits any more goes the way of
/// all others.
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

    /// The claim's fencing token: to be given to everything that the task has an effect on.
    pub fn epoch(&self) -> u64 {
        self.key.epoch
    }

    /// The claim, as the API names it.
    pub fn claim(&self) -> v1::Claim {
        let agent = self.shared.options.agent.clone();
        v1::Claim { task_id: self.task.id.clone(), agent, epoch: self.key.epoch }
    }

    /// Whether the claim is still the agent's own, now.
    ///
    /// # Errors
    /// [`Fenced`] says why it must stop.
    pub fn check(&self) -> Result<LeaseLeft, Fenced> {
        self.shared.holdings().check(&self.key, boot_ms())
    }

    /// Waits until the claim is taken back or its lease ends.
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

    /// Waits until the lease runs again after it had ended, with the claim still the agent's own.
    ///
    /// # Errors
    /// [`Fenced::ClaimLost`] if it is not.
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

    /// Says how far the work has come, and where another holder would go on.
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

    /// Finishes the task.
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
                // Until the shard has decided of the claim, or the agent is gone: then its lease ends. A request of its own
                // each time, since nothing is done twice by giving back the same claim.
                while client.release_task(claim.clone()).await.is_err_and(|error| error.leaves_open())
                    && shared.strong_count() > 0
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
    }
}

/// Commands on their way to the agent's software, each with what is said of it after that.
type Offered = mpsc::Receiver<(v1::Command, mpsc::Receiver<v1::command_news::News>)>;
/// A task on its way to the agent's software.
type Grant = (ClaimKey, Box<v1::Task>);
/// A grant on its way to whoever claimed it by name.
type Expected = oneshot::Sender<Grant>;
