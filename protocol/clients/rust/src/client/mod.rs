//! The client. Its calls are in a file for each noun.

mod agents;
mod calls;
mod commands;
mod dead_letters;
mod directory;
mod nodes;
mod operators;
mod pages;
mod shards;
mod tasks;
mod topics;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use skep_proto::v1;
use skep_protocol::ids::{Genesis, ShardId};
use skep_protocol::limits;
use skep_protocol::signing::Place;
use skep_protocol::time::LogInstant;
use tokio::time::Instant;

use crate::call::{Asked, Patience};
use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::pipe::Pipe;
use crate::request::RequestName;
use crate::service::Service;
pub use dead_letters::{DeadCommand, DeadLetter, RedriveError, RedriveTerms, Resent};
pub use directory::Directory;
pub use pages::{Page, pages};

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The shard that its calls are for.
    pub shard: ShardId,
    /// How long a call is tried in all. One that comes to be in doubt is sent again for as long as one sending may take at
    /// least: by then it may be known.
    pub patience: Duration,
    /// How long one sending may take.
    pub attempt_timeout: Duration,
    /// Whether requests about tasks share one stream, which costs less each, or are calls of their own.
    pub pipelined: bool,
    /// The shard's genesis, if it is known. What an operator signs is for the shard that the node names: one that lies names another
    /// one, and has a command signed that is good there. With this a client says [`ClientError::AnotherShard`] instead.
    pub genesis: Option<Genesis>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shard: ShardId::FIRST,
            patience: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(5),
            pipelined: false,
            genesis: None,
        }
    }
}

/// How a query is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Read {
    /// With everything that was acknowledged before.
    #[default]
    Linearizable,
    /// From the node's replica as it is, with its age.
    Stale,
}

/// A client of one node. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    service: Service,
    settings: Settings,
    /// The one request that all its calls are, if they are one.
    request: Option<v1::RequestMeta>,
    /// Whether that one was sent before, by somebody who does not know what became of it.
    sent_before: bool,
    /// Opened when it is first needed.
    pipe: Arc<OnceLock<Pipe>>,
    /// The shard's clock as it was last heard, and when.
    clock: Arc<Mutex<Option<(LogInstant, Instant)>>>,
    /// Where statements hold, once somebody asked.
    place: Arc<Mutex<Option<Place>>>,
}

impl Client {
    /// A client of the node at an endpoint. Connects when it is used.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint makes no sense.
    pub fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::with_settings(endpoint, Settings::default())
    }

    /// The same, with settings of its own.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint makes no sense.
    pub fn with_settings(endpoint: Endpoint, settings: Settings) -> Result<Self, ClientError> {
        let service = endpoint.channel()?;
        let (pipe, clock, place) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { service, settings, request: None, sent_before: false, pipe, clock, place })
    }

    /// The shard that its calls are for.
    pub fn shard(&self) -> ShardId {
        self.settings.shard
    }

    /// The genesis of the shard that it is for, if it was told.
    pub fn genesis(&self) -> Option<Genesis> {
        self.settings.genesis
    }

    /// Where statements hold that are signed for the shard: its site, its number, and the random bytes with which it began. Asked
    /// once.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::AnotherShard`] or [`ClientError::AnotherNumber`] if it is not the one that the client is for.
    pub async fn place(&self) -> Result<Place, ClientError> {
        let known = self.place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let reply = self.shard_place(Read::Linearizable).await?;
        let place = skep_proto::convert::place(&reply).map_err(|error| ClientError::Endpoint(error.to_string()))?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        Ok(place)
    }

    pub(crate) fn service(&self) -> Service {
        self.service.clone()
    }

    pub(crate) fn patience(&self) -> Patience {
        let Settings { patience: total, attempt_timeout: each, .. } = self.settings;
        Patience { total, each, in_doubt: each }
    }

    /// What a request of this name is.
    pub(crate) fn asked<'a>(&self, name: &'a str) -> Asked<'a> {
        if self.sent_before { Asked::Again(name) } else { Asked::First(name) }
    }

    /// A client whose next call is the request of this name, sent for the first time or again; a new one if there is no
    /// name. It is refused so long after it was first sent, in milliseconds. A client for one request: another one under the
    /// same name is refused.
    ///
    /// What is sent again is in doubt until the shard says what became of it: if that is refused as too old, or nobody can be
    /// asked, it is [`ClientError::Unknown`].
    ///
    /// # Errors
    /// [`ClientError`] if the shard's clock cannot be told.
    pub async fn under(&self, name: Option<RequestName>, valid_ms: u64) -> Result<Self, ClientError> {
        let known = name.and_then(|name| name.first_sent);
        let first_sent = match known {
            Some(first_sent) => first_sent,
            None => self.shard_clock().await?,
        };
        let id = name.map_or_else(uuid::Uuid::now_v7, |name| name.id);
        let request = v1::RequestMeta {
            request_id: id.as_bytes().to_vec(),
            shard: self.settings.shard.0,
            first_sent: first_sent.raw(),
            deadline: first_sent.plus_ms(valid_ms).raw(),
        };
        Ok(Self { request: Some(request), sent_before: known.is_some(), ..self.clone() })
    }

    /// The identity of a new request, or of the one that this client's calls are.
    pub(crate) async fn meta(&self) -> Result<v1::RequestMeta, ClientError> {
        if let Some(request) = &self.request {
            return Ok(request.clone());
        }
        let first_sent = self.shard_clock().await?;
        let deadline = first_sent.plus_ms(self.valid_ms());
        Ok(v1::RequestMeta {
            request_id: uuid::Uuid::now_v7().as_bytes().to_vec(),
            shard: self.settings.shard.0,
            first_sent: first_sent.raw(),
            deadline: deadline.raw(),
        })
    }

    /// How long a request is taken, in milliseconds: for as long as it is sent, so that the last sending tells as much as the
    /// first one.
    fn valid_ms(&self) -> u64 {
        let Patience { total, in_doubt, .. } = self.patience();
        let sent_for_ms = u64::try_from(total.saturating_add(in_doubt).as_millis()).unwrap_or(u64::MAX);
        sent_for_ms.clamp(limits::REQUEST_DEADLINE_MS_DEFAULT, limits::REQUEST_DEADLINE_MS_MAX)
    }

    /// The shard's clock: asked once a minute, and counted on from there. Counting stops short rather than running
    /// ahead, so that no request seems to come from the future.
    pub(crate) async fn shard_clock(&self) -> Result<LogInstant, ClientError> {
        const ASK_AGAIN: Duration = Duration::from_secs(60);
        let known = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((clock, at)) = known.filter(|(_, at)| at.elapsed() < ASK_AGAIN) {
            let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
            return Ok(clock.plus_ms(since - since / 1_000));
        }
        let clock = LogInstant::from_raw(self.clock().await?.clock);
        // Counted from the arrival of the answer, it stays behind the shard's own.
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock, Instant::now()));
        Ok(clock)
    }

    /// Forgets the shard's clock when it turned out to be wrong (the machine slept, or the shard began a new era), and where
    /// statements hold when the shard was made anew, so that the next request asks for it.
    pub(crate) fn mind_shard<T>(&self, result: &Result<T, ClientError>) {
        let Err(error) = result else { return };
        if error.is_of_another_shard() {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        // What is in doubt may have been refused for its clock too.
        if error.is_of_another_clock() || matches!(error, ClientError::Unknown { .. }) {
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}
