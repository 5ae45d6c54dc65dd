//! How the command line shows topics.

use serde::Serialize;
use skep_client::v1::TopicValue;

use crate::cli::Failure;
use crate::cli::output::{Format, json_line, print, span};

#[derive(Serialize)]
pub(super) struct View {
    topic: String,
    source: String,
    sender: String,
    content_type: String,
    payload: String,
    age_ms: u64,
}

impl View {
    pub(super) fn new(value: TopicValue) -> Self {
        Self {
            topic: value.topic,
            source: value.source,
            sender: value.sender,
            content_type: value.content_type,
            payload: String::from_utf8_lossy(&value.payload).into_owned(),
            age_ms: value.age_ms,
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => {
                let age = span(self.age_ms);
                print(&format!("{age:>10} ago  {}  {}  {}", self.topic, self.source, self.payload))
            }
            Format::Json | Format::Jsonl => json_line(self),
        }
    }
}
