//! `skep topic`

mod view;

use clap::Subcommand;
use skep_client::v1::{PublishRequest, TopicValue};
use skep_client::{Client, ClientError};
use tokio::time::Instant;

use super::follow::{AGAIN_AFTER, Outage, may_pass};
use super::output::{Format, reader_gone};
use super::{Common, Failure};
use view::View;

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Print the latest value of every source with its age, then new ones as the node hears them
    Tail {
        /// Topic: GROUP/KIND of this site, or SITE/GROUP/KIND; repeat for more
        #[arg(required = true)]
        topics: Vec<String>,
        /// Number of values after which to end [default: no end]
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Publish a value: best effort, the latest one wins
    Publish {
        /// Topic: GROUP/KIND of this site, or SITE/GROUP/KIND
        topic: String,
        /// Value: text of up to 4 KiB
        payload: String,
        /// Id of the agent that the value is about
        #[arg(long, env = "SKEP_AGENT", default_value = "cli")]
        source: String,
        /// Media type of the value
        #[arg(long, default_value = "text/plain")]
        content_type: String,
    },
}

impl Topic {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Publish { topic, payload, source, content_type } => {
                let payload = payload.into_bytes();
                Ok(common.client()?.publish(PublishRequest { topic, source, content_type, payload }).await?)
            }
            Self::Tail { topics, limit } => {
                let (client, topics) = (common.watcher()?, topics.iter().map(String::as_str).collect::<Vec<_>>());
                tokio::select! {
                    ended = tail(&client, &topics, limit, common.output) => ended,
                    () = reader_gone() => Err(Failure::reader_gone()),
                }
            }
        }
    }
}

/// Prints values until there were so many. It waits for a node that does not run, or restarts. Values that were
/// published meanwhile are lost, except the latest of each source that the node heard.
async fn tail(client: &Client, topics: &[&str], limit: Option<usize>, format: Format) -> Result<(), Failure> {
    let (mut outage, mut left) = (Outage::default(), limit.unwrap_or(usize::MAX));
    // When the stream broke off, if it did: older values were told.
    let mut broken_off: Option<Instant> = None;
    while left > 0 {
        let error = match client.subscribe(topics).await {
            Err(error) => error,
            Ok(mut values) => {
                outage.ended("values that were said meanwhile may be missing");
                let error = loop {
                    let value = match values.message().await {
                        Ok(Some(value)) => value,
                        Ok(None) => break ended(),
                        Err(status) => break ClientError::of_stream(&status),
                    };
                    if is_told(&value, broken_off) {
                        continue;
                    }
                    View::new(value).print(format)?;
                    left -= 1;
                    if left == 0 {
                        return Ok(());
                    }
                };
                broken_off = Some(Instant::now());
                error
            }
        };
        if !may_pass(&error) {
            return Err(error.into());
        }
        outage.began(&error.to_string());
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Ok(())
}

fn ended() -> ClientError {
    ClientError::Unknown { request_id: String::new(), last: "the stream ended".to_owned(), too_late: false }
}

/// Whether the node heard a value before the stream broke off, which told it.
fn is_told(value: &TopicValue, broken_off: Option<Instant>) -> bool {
    broken_off.is_some_and(|at| u128::from(value.age_ms) > at.elapsed().as_millis())
}
