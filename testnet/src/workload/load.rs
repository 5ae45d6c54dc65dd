//! Clients that create tasks, one at a time each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use skep_client::{Client, ClientError, TaskSpec};

/// What the clients have done.
pub struct Done {
    /// Ids of acknowledged tasks.
    pub acknowledged: Vec<[u8; 16]>,
    /// Latencies of acknowledged creates that began after the warm-up, in microseconds.
    pub latency_us: Histogram<u64>,
    /// How many calls ended in "not done".
    pub errors: u64,
    /// How many calls ended in "unknown".
    pub unknown: u64,
}

impl Done {
    fn new() -> Self {
        // Three digits up to a minute: a constant that the constructor accepts.
        let latency_us = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self { acknowledged: Vec::new(), latency_us, errors: 0, unknown: 0 }
    }

    fn merge(mut self, other: Self) -> Self {
        self.acknowledged.extend(other.acknowledged);
        let _ = self.latency_us.add(&other.latency_us);
        self.errors += other.errors;
        self.unknown += other.unknown;
        self
    }
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Done>>,
}

impl Load {
    /// Starts this many clients, spread over these connections.
    #[must_use]
    pub fn start(connections: &[Client], clients: usize, payload_bytes: usize) -> Self {
        let (stop, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let count = Arc::new(AtomicU64::new(0));
        let load: u64 = rand::random();
        let clients = connections.iter().cycle().take(clients).enumerate().map(|(n, client)| {
            let name = format!("{load:016x} {n}");
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let (measuring, count) = (Arc::clone(&measuring), Arc::clone(&count));
            tokio::spawn(async move { create(&client, &name, payload_bytes, &stop, &measuring, &count).await })
        });
        Self { clients: clients.collect(), stop, measuring, count }
    }

    /// Counts and times only what begins from here on.
    pub fn measure(&self) {
        self.measuring.store(true, Ordering::Relaxed);
    }

    /// How many acknowledged creates count.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets every client finish its call.
    pub async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Done::new();
        for client in self.clients {
            if let Ok(part) = client.await {
                done = done.merge(part);
            }
        }
        done
    }
}

/// Creates tasks one after the other, each under a title of its own: so a task that is made twice shows.
async fn create(
    client: &Client,
    name: &str,
    payload_bytes: usize,
    stop: &AtomicBool,
    measuring: &AtomicBool,
    count: &AtomicU64,
) -> Done {
    let mut done = Done::new();
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let spec = TaskSpec { title: format!("{name} {n}"), payload: vec![7; payload_bytes], ..TaskSpec::default() };
        let counts = measuring.load(Ordering::Relaxed);
        let begun = Instant::now();
        match client.create_task(spec).await {
            Ok(receipt) => {
                if let Ok(id) = receipt.task_id.try_into() {
                    done.acknowledged.push(id);
                }
                if counts {
                    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    done.latency_us.saturating_record(micros);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                if matches!(error, ClientError::Unknown { .. }) {
                    done.unknown += 1;
                } else {
                    done.errors += 1;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    done
}
