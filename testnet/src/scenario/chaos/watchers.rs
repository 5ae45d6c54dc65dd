//! Callers that watch a node, each over a connection of its own.

use std::time::Duration;

use skep_client::Client;
use tokio::task::JoinSet;

use crate::site::launch::TestNode;

/// How many callers watch a node that has few descriptors, each over a connection of its own.
const WATCHERS: usize = 96;
/// Wait before a refused caller tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Callers that watch a node until this is dropped.
pub(super) struct Watchers {
    _watching: JoinSet<()>,
}

impl Watchers {
    pub(super) fn start(node: &TestNode) -> Self {
        let mut watching = JoinSet::new();
        for _ in 0..WATCHERS {
            // Not a clone: clones share a connection.
            watching.spawn(watch(node.client()));
        }
        Self { _watching: watching }
    }
}

/// Watches, and tries again after every end.
async fn watch(client: Client) {
    loop {
        if let Ok(mut events) = client.watch_tasks(&[], None).await {
            while let Ok(Some(_)) = events.message().await {}
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
