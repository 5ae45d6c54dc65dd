//! Clients that read orders linearizably while things go wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_client::{Client, Read, v1};
use tokio::sync::watch;

use super::rotations::BALLAST;
use crate::record::{Call, ClientRecord, Op, RecordError, Recorder, Story, StoryRecord, boot_ns, hex};
use crate::site::warehouse::DemoSite;

/// How many readers there are.
const READERS: usize = 3;
/// The pause between two reads of one reader.
const PAUSE: Duration = Duration::from_millis(25);
/// The pause between two reads of the log clock, and how long one may take.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// How many orders a page of the list names.
const PAGE: u32 = 200;
/// How many reads of one order before the reader looks for others.
const READS_PER_ORDER: u32 = 20;

/// Running readers.
pub(super) struct Readers {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Readers {
    /// Starts the readers, each with a history of its own.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(super) fn start(site: &DemoSite, histories: &Path, seed: u64, story: Story) -> Result<Self, RecordError> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![tokio::spawn(follow_clock(site.clients(), story, stopped.clone()))];
        for n in 0..READERS {
            let name = format!("reader-{n}");
            let recorder = Arc::new(Recorder::open(&histories.join(format!("{name}.jsonl")))?);
            let rng = SmallRng::seed_from_u64(seed ^ n as u64);
            let reader = Reader { name, clients: site.clients(), recorder, rng };
            tasks.push(tokio::spawn(reader.run(stopped.clone())));
        }
        Ok(Self { stop, tasks })
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Records the shard's log clock each second, as the node that answers knows it.
async fn follow_clock(clients: Vec<Client>, story: Story, stopped: watch::Receiver<bool>) {
    for client in clients.iter().cycle() {
        if *stopped.borrow() {
            return;
        }
        // A node that is suspended does not answer; the next one may.
        let asked = tokio::time::timeout(CLOCK_PAUSE, client.clock()).await;
        if let Ok(Ok(now)) = asked
            && now.clock > 0
        {
            story.record(&StoryRecord::Clock { at_ns: boot_ns(), clock: now.clock });
            tokio::time::sleep(CLOCK_PAUSE).await;
        }
    }
}

struct Reader {
    name: String,
    clients: Vec<Client>,
    recorder: Arc<Recorder>,
    rng: SmallRng,
}

impl Reader {
    async fn run(mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            tokio::time::sleep(PAUSE).await;
            let at = self.rng.random_range(0..self.clients.len());
            let client = self.clients[at].clone();
            let Ok(page) = client.tasks(&[], &[], PAGE, Read::Stale).await else { continue };
            let is_order = |task: &v1::Task| task.spec.as_ref().is_some_and(|spec| spec.title != BALLAST);
            let mut orders: Vec<_> = page.tasks.into_iter().filter(is_order).map(|task| task.id).collect();
            if orders.is_empty() {
                continue;
            }
            let task = orders.swap_remove(self.rng.random_range(0..orders.len()));
            for _ in 0..READS_PER_ORDER {
                self.read(&client, &task).await;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn read(&self, client: &Client, task: &[u8]) {
        let (client_name, op) = (self.name.clone(), Op::Read);
        let call = Call { client: client_name, op, task: hex(task), epoch: 0, errands: 0 };
        let _ = self.recorder.write(&ClientRecord::Invoke { at_ns: boot_ns(), call: call.clone() });
        let reply = client.task(task, Read::Linearizable).await;
        let at_ns = boot_ns();
        let record = match reply {
            Ok(reply) => {
                let (found, index) = (reply.task.unwrap_or_default(), reply.as_of.map_or(0, |as_of| as_of.index));
                let status = found.status().as_str_name().to_owned();
                ClientRecord::Seen { at_ns, call, index, status, epoch: found.epoch }
            }
            Err(error) => ClientRecord::Fail { at_ns, call, why: error.to_string() },
        };
        let _ = self.recorder.write(&record);
    }
}
