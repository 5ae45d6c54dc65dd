//! Checks that voters have the whole history once everything is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::site::warehouse::DemoSite;

/// How long voters may take to fetch what is missing. They fetch slowly, so that they delay no other work.
const FILLED_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until voters have fetched what is missing in their histories, for a generous time. Returns what is still wrong
/// with the voters that never lost their disk.
pub(super) async fn incomplete(site: &DemoSite, voters: usize, lost_disks: &BTreeSet<usize>) -> Vec<String> {
    let until = Instant::now() + FILLED_WITHIN;
    let mut found = Vec::new();
    for (at, node) in site.net.nodes.iter().enumerate().take(voters) {
        let client = node.client();
        let history = loop {
            let history = client.shard_status().await.ok().and_then(|status| status.history);
            if history.as_ref().is_some_and(|history| history.missing == 0) || Instant::now() >= until {
                break history.unwrap_or_default();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if !lost_disks.contains(&at) && history.missing + history.lost > 0 {
            let (name, missing, lost) = (&node.name, history.missing, history.lost);
            found.push(format!("the history of {name} lacks {missing} entries still and {lost} for good"));
        }
    }
    found
}
