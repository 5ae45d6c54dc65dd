//! Who is out of the site, from a member that has just learned it. Told to all that are connected, in `net/news.rs`.

use std::sync::Arc;

use skep_protocol::frame::FrameKind;
use skep_trust::SiteNews;

use super::{Asked, Call, as_text};
use crate::net::Class;
use crate::shards::Shards;

pub(super) const SITE_NEWS: Call =
    Call::new(FrameKind::SiteNews, Class::Query, |shards, asked| Box::pin(answer(shards, asked)));

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let news = SiteNews::from_bytes(&asked.body).map_err(as_text)?;
    shards.parts.peers.learn(news).await?;
    Ok(Vec::new())
}
