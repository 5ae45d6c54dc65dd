//! `skep topic`

use clap::Subcommand;
use serde::Serialize;
use skep_client::v1::{PublishRequest, TopicValue};

use super::output::{Format, print, span};
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// The latest value of every source with its age, then new ones as they are heard
    Tail {
        /// group/kind of this site, or site/group/kind; repeat for more
        #[arg(required = true)]
        topics: Vec<String>,
        /// End after so many values
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Say something: best effort, latest wins
    Publish {
        /// group/kind of this site, or site/group/kind
        topic: String,
        /// What
        payload: String,
        /// Of whom
        #[arg(long, env = "SKEP_AGENT", default_value = "cli")]
        source: String,
        /// A media type
        #[arg(long, default_value = "text/plain")]
        content_type: String,
    },
}

#[derive(Serialize)]
struct View {
    topic: String,
    source: String,
    sender: String,
    content_type: String,
    payload: String,
    age_ms: u64,
}

fn view(value: TopicValue) -> View {
    View {
        topic: value.topic,
        source: value.source,
        sender: value.sender,
        content_type: value.content_type,
        payload: String::from_utf8_lossy(&value.payload).into_owned(),
        age_ms: value.age_ms,
    }
}

impl Topic {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        match self {
            Self::Publish { topic, payload, source, content_type } => {
                let payload = payload.into_bytes();
                Ok(client.publish(PublishRequest { topic, source, content_type, payload }).await?)
            }
            Self::Tail { topics, limit } => {
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                let mut values = client.subscribe(&topics).await?;
                for _ in 0..limit.unwrap_or(usize::MAX) {
                    let Some(value) = values.message().await.map_err(Failure::failed)? else { break };
                    let value = view(value);
                    match common.output {
                        Format::Table => print(&format!(
                            "{:>10} ago  {}  {}  {}",
                            span(value.age_ms),
                            value.topic,
                            value.source,
                            value.payload
                        )),
                        Format::Json | Format::Jsonl => print(&serde_json::to_string(&value).map_err(Failure::failed)?),
                    }
                }
                Ok(())
            }
        }
    }
}
