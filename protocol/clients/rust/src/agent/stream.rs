//! The stream between an agent and its node.

use std::sync::Arc;
use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::agent_message::Message as Say;
use skep_proto::v1::node_message::Message as Told;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::holdings::{ClaimKey, Granted};
use super::{AgentStatus, Grant, LeaseLeft, Shared, boot_ms};
use crate::client::Client;
use crate::error::{ClientError, Heard, heard};

/// Shortest and longest wait between attempts to attach.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Messages on their way to the node.
const MESSAGES_QUEUED_MAX: usize = 64;
/// Keep-alives in one lease, and their longest interval.
const KEEP_ALIVES_PER_LEASE: u32 = 8;
const KEEP_ALIVE_MAX: Duration = Duration::from_millis(500);

/// How a stream ended.
enum End {
    /// Try again.
    Again(Heard),
    /// The agent has detached, or nobody is interested any more.
    Over,
}

/// Keeps an agent attached until it leaves or is refused for good.
pub(super) async fn run(client: Client, shared: Arc<Shared>, queue: mpsc::Sender<Grant>) {
    let mut wait = RETRY_MIN;
    let mut was_ever_attached = false;
    // Since when it is refused what it does not wait for without end.
    let mut refused_since: Option<Instant> = None;
    loop {
        let end = attached(&client, &shared, &queue).await;
        let was_attached = matches!(*shared.status.borrow(), AgentStatus::Attached { .. });
        if was_attached {
            (wait, refused_since, was_ever_attached) = (RETRY_MIN, None, true);
        }
        let heard = match end {
            End::Over => return drop(shared.status.send_replace(AgentStatus::Ended(None))),
            End::Again(heard) => heard,
        };
        if *shared.leaving.borrow() {
            return drop(shared.status.send_replace(AgentStatus::Ended(None)));
        }
        let mut floor = Duration::ZERO;
        if let Heard::NotDone(failure) = heard {
            floor = Duration::from_millis(failure.retry_after_ms);
            // A node that is down, or a shard without a quorum, is waited for by an agent that was attached once. Another
            // run of its software that has the agent may never let it go.
            let waits = was_ever_attached && failure.code != "SKEP-0118";
            let since = if waits { None } else { refused_since.or(Some(Instant::now())) };
            refused_since = since;
            let tired = since.is_some_and(|since| since.elapsed() > shared.options.patience);
            // Its lease has ended: whatever it held is another's.
            if failure.code == "SKEP-0119" {
                shared.holdings().lose_all();
            } else if !failure.retryable || tired {
                shared.holdings().lose_all();
                let error = ClientError::NotDone(failure);
                return drop(shared.status.send_replace(AgentStatus::Ended(Some(error))));
            }
        }
        shared.status.send_replace(AgentStatus::Attaching);
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0)).max(floor)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

fn message(say: Say) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(say) }
}

fn keep_alive(shared: &Shared) -> v1::AgentMessage {
    message(Say::KeepAlive(v1::KeepAlive { stamp: boot_ms(), place: *shared.place.borrow() }))
}

/// One stream, from attach to its end.
async fn attached(client: &Client, shared: &Arc<Shared>, queue: &mpsc::Sender<Grant>) -> End {
    let (say, messages) = mpsc::channel(MESSAGES_QUEUED_MAX);
    let options = &shared.options;
    let attach = v1::AttachAgent {
        shard: shared.shard,
        agent: options.agent.clone(),
        role: Some(options.role.clone()),
        session: shared.session.clone(),
        lease_ttl: options.lease_ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok()),
    };
    // The channel is empty: there is room.
    let _ = say.try_send(message(Say::Attach(attach)));
    let _ = say.try_send(keep_alive(shared));
    let mut told = match client.open_attach(ReceiverStream::new(messages)).await {
        Ok(told) => told,
        Err(status) => return End::Again(heard(&status)),
    };
    let mut alive = tokio::time::interval(KEEP_ALIVE_MAX);
    let (mut wanted, mut place, mut leaving) =
        (shared.wanted.subscribe(), shared.place.subscribe(), shared.leaving.subscribe());
    let (mut takes, mut to_say) = (shared.desk.takes(), shared.desk.to_say());
    let mut is_attached = false;
    loop {
        let next = tokio::select! {
            next = told.message() => next,
            Ok(()) = takes.changed(), if is_attached => {
                let groups = takes.borrow_and_update().clone();
                if let Some(groups) = groups {
                    // Before anything is offered on this stream: it holds for all of it.
                    let take = v1::TakeCommands { groups, in_hand: shared.desk.in_hand() };
                    if say.send(message(Say::TakeCommands(take))).await.is_err() {
                        return End::Again(Heard::InDoubt("the stream ended".to_owned()));
                    }
                }
                continue;
            }
            Ok(()) = to_say.changed(), if is_attached => {
                to_say.borrow_and_update();
                for step in shared.desk.drain() {
                    if say.send(message(Say::Command(step))).await.is_err() {
                        return End::Again(Heard::InDoubt("the stream ended".to_owned()));
                    }
                }
                continue;
            }
            _ = alive.tick(), if is_attached => {
                let _ = say.try_send(keep_alive(shared));
                continue;
            }
            Ok(()) = place.changed(), if is_attached => {
                let _ = say.try_send(keep_alive(shared));
                continue;
            }
            Ok(()) = wanted.changed(), if is_attached => {
                let count = *wanted.borrow_and_update();
                if count > 0 && say.send(message(Say::Credits(v1::GiveCredits { count }))).await.is_err() {
                    return End::Again(Heard::InDoubt("the stream ended".to_owned()));
                }
                continue;
            }
            Ok(()) = leaving.changed(), if is_attached => {
                // Stopped first, and told after.
                shared.holdings().lose_all();
                let _ = say.send(message(Say::Detach(v1::DetachAgent {}))).await;
                let rest = async { while let Ok(Some(_)) = told.message().await {} };
                let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
                return End::Over;
            }

        };
        let told = match next {
            Ok(Some(message)) => message.message,
            Ok(None) => return End::Again(Heard::InDoubt("the stream ended".to_owned())),
            Err(status) => return End::Again(heard(&status)),
        };
        match told {
            Some(Told::Attached(attached)) => {
                is_attached = true;
                let ttl = attached.lease_ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or(KEEP_ALIVE_MAX);
                alive = tokio::time::interval((ttl / KEEP_ALIVES_PER_LEASE).min(KEEP_ALIVE_MAX));
                shared.holdings().attached();
                shared.status.send_replace(AgentStatus::Attached { attachment: attached.attachment });
                // What was asked for on an earlier stream is asked for again.
                wanted.mark_changed();
                takes.mark_changed();
                shared.desk.say_all_again();
                if *leaving.borrow() {
                    leaving.mark_changed();
                }
            }
            Some(Told::Failure(failure)) => return End::Again(Heard::NotDone(Box::new(failure))),
            Some(told) => on_told(shared, queue, told),
            None => {}
        }
    }
}

fn on_told(shared: &Arc<Shared>, queue: &mpsc::Sender<Grant>, told: Told) {
    let granted: Vec<Granted> = match told {
        Told::Grant(v1::TaskGrant { task: Some(task), epoch, spends_credit, .. }) => {
            let key = ClaimKey { task: task.id.clone(), epoch };
            shared.holdings().granted(key, Box::new(task), spends_credit).into_iter().collect()
        }
        Told::Lost(lost) => {
            let unheard = shared.holdings().lost(&ClaimKey { task: lost.task_id, epoch: lost.epoch });
            if unheard {
                // Whoever waits for a task still does: the credit is given again.
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
        // There is room for as many as one agent may hold: the shard gives it no more.
        let _ = queue.try_send((key, task));
    }
}
