//! What the fleet publishes of itself, as one node hears it; and a flood of telemetry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use skep_client::Client;
use skep_client::v1::PublishRequest;
use tokio::sync::mpsc;

use crate::site::robot::{BATTERY, POSE};

/// A robot that was silent for this long does not count as heard.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
/// The pause before the demo listens through another node.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(200);

/// The latest values that were heard of one robot.
#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    cell: u64,
    permille: Option<u64>,
}

/// The fleet as it is heard through one node.
#[derive(Clone, Default)]
pub(super) struct Fleet {
    robots: Arc<Mutex<BTreeMap<String, Heard>>>,
}

impl Fleet {
    /// Listens through any node that answers, until it is dropped.
    pub(super) async fn listen(self, clients: Vec<Client>) {
        for client in clients.iter().cycle() {
            if let Ok(mut values) = client.subscribe(&[POSE, BATTERY]).await {
                while let Ok(Some(value)) = values.message().await {
                    self.note(&value.source, &value.payload, Duration::from_millis(value.age_ms));
                }
            }
            tokio::time::sleep(ELSEWHERE_AFTER).await;
        }
    }

    fn note(&self, robot: &str, payload: &[u8], age: Duration) {
        if !robot.starts_with("robot-") {
            return;
        }
        let Ok(said) = serde_json::from_slice::<serde_json::Value>(payload) else { return };
        let mut robots = self.robots.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        let heard = robots.entry(robot.to_owned()).or_insert(Heard { at, cell: 0, permille: None });
        heard.at = at;
        heard.cell = said["cell"].as_u64().unwrap_or(heard.cell);
        heard.permille = said["permille"].as_u64().or(heard.permille);
    }

    /// One line: how many robots are heard, and a few of them.
    pub(super) fn line(&self, of: usize) -> String {
        let robots = self.robots.lock().unwrap_or_else(PoisonError::into_inner);
        let heard: Vec<_> = robots.iter().filter(|(_, heard)| heard.at.elapsed() < HEARD_WITHIN).collect();
        let some: Vec<String> = heard
            .iter()
            .take(3)
            .map(|(name, heard)| {
                let charge = heard.permille.map(|permille| format!(" {} %", permille / 10)).unwrap_or_default();
                format!("{name} at {}{charge}", heard.cell)
            })
            .collect();
        format!("fleet: {} of {of} robots heard; {}", heard.len(), some.join(", "))
    }
}

/// Publishes this many values a second through every node, on the robots' topic, from sources that are not robots;
/// until it is dropped. Counts how many were sent.
pub(super) async fn flood(client: Client, per_s: f64, name: String, sent: Arc<std::sync::atomic::AtomicU64>) {
    loop {
        let (queue, stream) = mpsc::channel(1_024);
        let feed = async {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s.max(0.001)));
            for n in 0u64.. {
                ticks.tick().await;
                let publication = PublishRequest {
                    topic: POSE.to_owned(),
                    source: format!("{name}-{}", n % 10),
                    content_type: "application/json".to_owned(),
                    payload: format!("{{\"cell\":{n},\"padding\":\"{}\"}}", "x".repeat(200)).into_bytes(),
                };
                if queue.send(publication).await.is_err() {
                    return;
                }
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        };
        tokio::select! {
            _ = client.publish_all(stream) => {}
            () = feed => {}
        }
        tokio::time::sleep(ELSEWHERE_AFTER).await;
    }
}
