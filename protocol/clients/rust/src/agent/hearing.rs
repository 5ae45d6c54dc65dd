//! The receiving side of a stream: what a node tells an agent.

use std::sync::Arc;
use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::node_message::Message as Told;
use tokio::sync::mpsc;

use super::holdings::{ClaimKey, Granted};
use super::{Grant, LeaseLeft, Shared, boot_ms};

/// Takes what a node tells an attached agent.
pub(super) fn hear(shared: &Arc<Shared>, queue: &mpsc::Sender<Grant>, told: Told) {
    let granted: Vec<Granted> = match told {
        Told::Grant(v1::TaskGrant { task: Some(task), epoch, spends_credit, .. }) => {
            let key = ClaimKey { task: task.id.clone(), epoch };
            shared.holdings().granted(key, Box::new(task), spends_credit).into_iter().collect()
        }
        Told::Lost(lost) => {
            let unheard = shared.holdings().lost(&ClaimKey { task: lost.task_id, epoch: lost.epoch });
            if unheard {
                // The callers that wait for a task still do: the credit is given again.
                shared.wanted.send_modify(|_| {});
            }
            Vec::new()
        }
        Told::Lease(lease) => {
            let usable = lease.usable.and_then(|usable| Duration::try_from(usable).ok()).unwrap_or_default();
            let until_ms = lease.stamp.saturating_add(u64::try_from(usable.as_millis()).unwrap_or(0));
            if let Some(renewals) = &shared.renewals {
                renewals(LeaseLeft { at_ms: boot_ms(), until_ms });
            }
            shared.holdings().renewed(until_ms)
        }
        Told::Holds(holds) => {
            let held = holds.claims.into_iter().map(|claim| ClaimKey { task: claim.task_id, epoch: claim.epoch });
            shared.holdings().keep_only(&held.collect());
            Vec::new()
        }
        Told::Command(news) => {
            shared.desk.hear(news);
            Vec::new()
        }
        Told::Attached(_) | Told::Failure(_) | Told::Grant(_) => Vec::new(),
    };
    for granted in granted {
        if matches!(granted, Granted::New(..) | Granted::ByName { spent_credit: true }) {
            shared.wanted.send_if_modified(|wanted| {
                *wanted = wanted.saturating_sub(1);
                false
            });
        }
        let Granted::New(key, task) = granted else { continue };
        // The queue has room for as many as one agent may hold: the shard gives it no more.
        let _ = queue.try_send((key, task));
    }
}
