//! Topics at the border.

use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Publication, TopicPath};
use skep_protocol::text::{AgentId, ContentType, SiteName};

use crate::v1;

/// Reads a topic as a client names it: of the node's own site if it names no site.
///
/// # Errors
/// [`FieldError`] if the text is not a topic.
pub fn topic(text: &str, site: &SiteName) -> Result<TopicPath, FieldError> {
    let whole = if text.split('/').count() == 2 { format!("{site}/{text}") } else { text.to_owned() };
    let topic = TopicPath::new(whole).map_err(|e| field("topic", e))?;
    if topic.is_of(site) { Ok(topic) } else { Err(field("topic", format!("{topic} is not of this site, {site}"))) }
}

/// Reads a publication of a client.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn publication(request: v1::PublishRequest, site: &SiteName) -> Result<Publication, FieldError> {
    let publication = Publication {
        topic: topic(&request.topic, site)?,
        source: AgentId::new(&request.source).in_field("source")?,
        content_type: ContentType::new(&request.content_type).in_field("content_type")?,
        payload: request.payload,
    };
    publication.check().map_err(|error| field("payload", error))?;
    Ok(publication)
}

/// The protobuf form of a value.
pub fn value_to_proto(publication: &Publication, sender: NodeId, age_ms: u64) -> v1::TopicValue {
    v1::TopicValue {
        topic: publication.topic.to_string(),
        source: publication.source.to_string(),
        sender: sender.to_string(),
        content_type: publication.content_type.to_string(),
        payload: publication.payload.clone(),
        age_ms,
    }
}
