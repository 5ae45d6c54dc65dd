//! The stream between an agent and its node: the client opens it, and opens it again when it has ended.

use std::sync::Arc;
use std::time::Duration;

use skep_proto::v1::node_message::Message as Told;
use skep_protocol::code::Code;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::hearing::hear;
use super::saying::{Due, Saying, introduce};
use super::{AgentStatus, Grant, Shared};
use crate::client::Client;
use crate::error::{ClientError, Heard, heard};

/// The shortest and longest wait between two attempts to attach.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The most messages that are on their way to the node.
const MESSAGES_QUEUED_MAX: usize = 64;
/// How long the node may take to end the stream of an agent that leaves.
const DETACH_MAX: Duration = Duration::from_secs(5);

/// How a stream ended.
enum End {
    /// The client tries again.
    Again(Heard),
    /// The agent has detached, or the application has dropped it.
    Over,
}

/// Keeps an agent attached until it leaves or is refused for good.
pub(super) async fn run(client: Client, shared: Arc<Shared>, queue: mpsc::Sender<Grant>) {
    let mut wait = RETRY_MIN;
    let mut was_ever_attached = false;
    // Since when the node refuses the agent with a refusal that the client does not accept for ever.
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
            // An agent that was attached once waits for a node that is down, or a shard without a quorum. But another
            // session that has the agent may never release it.
            let code = Code::of(&failure.code);
            let waits = was_ever_attached && code != Some(Code::AgentElsewhere);
            let since = if waits { None } else { refused_since.or(Some(Instant::now())) };
            refused_since = since;
            let tired = since.is_some_and(|since| since.elapsed() > shared.options.patience);
            // The agent's lease has ended: another agent may have what it held.
            if code == Some(Code::NotAttached) {
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

/// Serves one stream, from attach to its end.
async fn attached(client: &Client, shared: &Arc<Shared>, queue: &mpsc::Sender<Grant>) -> End {
    let broken = || End::Again(Heard::InDoubt("the stream ended".to_owned()));
    let (say, messages) = mpsc::channel(MESSAGES_QUEUED_MAX);
    introduce(shared, &say);
    let mut told = match client.open_attach(ReceiverStream::new(messages)).await {
        Ok(told) => told,
        Err(status) => return End::Again(heard(&status)),
    };
    let mut saying = Saying::new(shared, say);
    let mut is_attached = false;
    loop {
        let next = tokio::select! {
            next = told.message() => next,
            due = saying.due(), if is_attached => {
                let leaves = matches!(due, Due::Leave);
                let is_said = saying.say(shared, due).await;
                if leaves {
                    let rest = async { while let Ok(Some(_)) = told.message().await {} };
                    let _ = tokio::time::timeout(DETACH_MAX, rest).await;
                    return End::Over;
                }
                if !is_said {
                    return broken();
                }
                continue;
            }
        };
        let told = match next {
            Ok(Some(message)) => message.message,
            Ok(None) => return broken(),
            Err(status) => return End::Again(heard(&status)),
        };
        match told {
            Some(Told::Attached(attached)) => {
                is_attached = true;
                shared.holdings().attached();
                shared.status.send_replace(AgentStatus::Attached { attachment: attached.attachment });
                saying.begin(shared, attached.lease_ttl);
            }
            Some(Told::Failure(failure)) => return End::Again(Heard::NotDone(Box::new(failure))),
            Some(told) => hear(shared, queue, told),
            None => {}
        }
    }
}
