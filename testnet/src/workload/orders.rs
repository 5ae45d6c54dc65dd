//! The client that creates orders and follows them to their ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_client::v1::{CreateTaskRequest, RequestMeta, RetryPolicy};
use skep_client::{Client, ClientError, Code, Read, RequestId, TaskSpec};
use tokio::sync::watch;

use crate::record::{Call, ClientRecord, Op, Recorder, Story, boot_ns, hex};
use crate::workload::{OrderPayload, Workload};

/// How many attempts an order has: a robot that dies with it costs one.
const ATTEMPTS_MAX: u32 = 100;
/// The deadline of a create after its first sending, on the shard's clock, in milliseconds.
const CREATE_DEADLINE_MS: u64 = 10 * 60 * 1_000;
/// The pause before another node is tried.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(50);

/// The results of the orders so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many have ended, in any way.
    pub(crate) ended: usize,
}

/// Creates orders: as many at a time as the workload reveals.
pub(crate) struct Orders {
    pub(crate) clients: Vec<Client>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) workload: Workload,
    pub(crate) robots: usize,
    pub(crate) story: Story,
    pub(crate) progress: watch::Sender<Progress>,
    /// Once this says true, no more orders are created.
    pub(crate) closing: watch::Receiver<bool>,
}

impl Orders {
    /// Runs until every order has ended. Returns the ids of all orders.
    pub(crate) async fn run(mut self) -> Vec<Vec<u8>> {
        let (ends, mut ended) = watch::channel(BTreeSet::new());
        let following = tokio::spawn(follow(self.clients.clone(), ends));
        let open_max = ((self.workload.reveal * self.robots as f64).ceil() as usize).max(1);
        let mut created: Vec<Vec<u8>> = Vec::new();
        let mut next = 0;
        loop {
            let done = {
                let ended = ended.borrow_and_update();
                created.iter().filter(|id| ended.contains(*id)).count()
            };
            self.progress.send_replace(Progress { ended: done });
            self.story.progress(done);
            let closed = *self.closing.borrow_and_update();
            let all_asked_for = closed || next == self.workload.orders.len();
            if all_asked_for && done == created.len() {
                break;
            }
            if !all_asked_for && created.len() - done < open_max {
                created.extend(self.create(next).await);
                next += 1;
                continue;
            }
            tokio::select! {
                changed = ended.changed() => if changed.is_err() { break },
                Ok(()) = self.closing.changed() => {}
            }
        }
        following.abort();
        created
    }

    fn spec(&self, n: usize) -> TaskSpec {
        let errands = self.workload.orders[n].clone();
        let place = errands.first().map(|cell| {
            let (x_mm, y_mm) = self.workload.floor.position_mm(*cell);
            skep_client::v1::Position { x_mm, y_mm }
        });
        let payload = serde_json::to_vec(&OrderPayload { errands }).unwrap_or_default();
        let backoff = prost_types::Duration { seconds: 0, nanos: 100_000_000 };
        TaskSpec {
            title: format!("order {n}"),
            r#type: "transport".to_owned(),
            required_capabilities: vec!["transport".to_owned()],
            payload,
            retry: Some(RetryPolicy {
                attempts_max: Some(ATTEMPTS_MAX),
                backoff_initial: Some(backoff),
                backoff_max: None,
            }),
            place,
            ..TaskSpec::default()
        }
    }

    /// Finds out what became of an order in doubt: returns its id if it exists.
    async fn became(&self, task: Vec<u8>) -> Option<Vec<u8>> {
        for client in self.clients.iter().cycle() {
            match client.task(&task, Read::Linearizable).await {
                Ok(_) => return Some(task),
                Err(error) if error.code() == Some(Code::NotFound) => return None,
                Err(_) => tokio::time::sleep(ELSEWHERE_AFTER).await,
            }
        }
        None
    }

    /// Creates an order under one request id, at any node that answers. None if it was not created.
    async fn create(&self, n: usize) -> Option<Vec<u8>> {
        let id = RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes());
        let task = id.as_bytes().to_vec();
        let call = Call { client: "orders".to_owned(), op: Op::Create, task: hex(&task), epoch: 0, errands: 0 };
        let _ = self.recorder.write(&ClientRecord::Invoke { at_ns: boot_ns(), call: call.clone() });
        let mut meta: Option<RequestMeta> = None;
        let mut clients = self.clients.iter().cycle().skip(n % self.clients.len());
        loop {
            let Some(client) = clients.next() else { unreachable!("a cycle of nodes does not end") };
            if meta.is_none() {
                meta = client.clock().await.ok().map(|now| RequestMeta {
                    request_id: task.clone(),
                    shard: client.shard().0,
                    first_sent: now.clock,
                    deadline: now.clock + CREATE_DEADLINE_MS,
                });
            }
            let Some(meta) = meta.clone() else {
                tokio::time::sleep(ELSEWHERE_AFTER).await;
                continue;
            };
            let request = CreateTaskRequest { meta: Some(meta), task_id: task.clone(), spec: Some(self.spec(n)) };
            let at_ns = || boot_ns();
            match client.send_create(request).await {
                Ok(receipt) => {
                    let (request, index) = (hex(&receipt.request_id), receipt.index);
                    let _ = self.recorder.write(&ClientRecord::Ok { at_ns: at_ns(), call, request, index });
                    return Some(task);
                }
                // Its deadline has passed, or its clock was lost: another sending settles nothing.
                Err(ClientError::NotDone(failure)) if Code::of(&failure.code).is_some_and(Code::is_too_late) => {
                    let why = failure.message.clone();
                    let _ = self.recorder.write(&ClientRecord::Unknown { at_ns: at_ns(), call: call.clone(), why });
                    return self.became(task).await;
                }
                // The same request goes to another node, which settles what is in doubt.
                Err(ClientError::Unknown { .. }) => {}
                Err(ClientError::NotDone(failure)) if failure.retryable || failure.silent_about_earlier => {}
                Err(error) => {
                    let why = error.to_string();
                    let _ = self.recorder.write(&ClientRecord::Fail { at_ns: at_ns(), call: call.clone(), why });
                    self.story.say(&format!("order {n} was refused: {error}"));
                    return None;
                }
            }
            tokio::time::sleep(ELSEWHERE_AFTER).await;
        }
    }
}

/// Follows the ends of tasks on any node that answers.
async fn follow(clients: Vec<Client>, ends: watch::Sender<BTreeSet<Vec<u8>>>) {
    let mut from = Some(1);
    for client in clients.iter().cycle() {
        if let Ok(mut events) = client.watch_tasks(&["task-completions"], from).await {
            while let Ok(Some(event)) = events.message().await {
                from = Some(event.index);
                ends.send_if_modified(|ends| ends.insert(event.task_id));
            }
        }
        tokio::time::sleep(ELSEWHERE_AFTER).await;
    }
}

/// The tasks that each robot holds, and under which claims.
pub(crate) async fn held(client: &Client) -> Option<Vec<(String, Vec<u8>, u64)>> {
    let claimed = [skep_client::TaskStatus::Claimed];
    let reply = client.tasks(&claimed, &[], 1_000, Read::Linearizable).await.ok()?;
    Some(reply.tasks.into_iter().map(|task| (task.claimed_by, task.id, task.epoch)).collect())
}
