//! Topics at the border.

use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{InvalidPublication, Publication, TopicPath};
use skep_protocol::text::{AgentId, SiteName};

use crate::v1;

/// A topic as a client names it: of the node's own site if it names none.
///
/// # Errors
/// [`FieldError`] if it is none.
pub fn topic(text: &str, site: &SiteName) -> Result<TopicPath, FieldError> {
    let whole = if text.split('/').count() == 2 { format!("{site}/{text}") } else { text.to_owned() };
    let topic = TopicPath::new(whole).map_err(|e| field("topic", e))?;
    if topic.is_of(site) { Ok(topic) } else { Err(field("topic", format!("{topic} is not of this site, {site}"))) }
}

/// What a client says on a topic.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn publication(request: v1::PublishRequest, site: &SiteName) -> Result<Publication, FieldError> {
    let publication = Publication {
        topic: topic(&request.topic, site)?,
        source: AgentId::new(&request.source).in_field("source")?,
        content_type: request.content_type,
        payload: request.payload,
    };
    match publication.check() {
        Ok(()) => Ok(publication),
        Err(error @ InvalidPublication::Payload { .. }) => Err(field("payload", error)),
        Err(error) => Err(field("content_type", error)),
    }
}

/// The protobuf form of a value.
pub fn value_to_proto(publication: &Publication, sender: NodeId, age_ms: u64) -> v1::TopicValue {
    v1::TopicValue {
        topic: publication.topic.to_string(),
        source: publication.source.to_string(),
        sender: sender.to_string(),
        content_type: publication.content_type.clone(),
        payload: publication.payload.clone(),
        age_ms,
    }
}
