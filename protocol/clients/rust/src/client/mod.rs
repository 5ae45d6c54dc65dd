//! The client. The calls of each noun are in a file of their own.

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
    /// The shard that the calls are for.
    pub shard: ShardId,
    /// How long a call is tried in all. A call that comes to be in doubt is sent again for at least as long as one
    /// sending may take: by then the outcome may be known.
    pub patience: Duration,
    /// How long one sending may take.
    pub attempt_timeout: Duration,
    /// Whether requests about tasks share one stream, which costs less each; otherwise each is a call of its own.
    pub pipelined: bool,
    /// The shard's genesis, if it is known. An operator signs for the shard that the node names. A lying node names
    /// another shard, and gets a command signed that is valid there. With this setting the client returns
    /// [`ClientError::AnotherShard`] instead.
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
    /// With every write that was acknowledged before the query.
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
    /// The one request that all calls of this client are; none for an ordinary client.
    request: Option<v1::RequestMeta>,
    /// Whether that request was sent before, by a sender that does not know its outcome.
    sent_before: bool,
    /// The shared stream, opened when it is first needed.
    pipe: Arc<OnceLock<Pipe>>,
    /// The shard's clock as it was last heard, and when that was.
    clock: Arc<Mutex<Option<(LogInstant, Instant)>>>,
    /// The place where statements hold; none before the client asked.
    place: Arc<Mutex<Option<Place>>>,
}

impl Client {
    /// Makes a client of the node at an endpoint. It connects at its first call.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint is not valid.
    pub fn connect(endpoint: Endpoint) -> Result<Self, ClientError> {
        Self::with_settings(endpoint, Settings::default())
    }

    /// Makes a client with settings of its own.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] if the endpoint is not valid.
    pub fn with_settings(endpoint: Endpoint, settings: Settings) -> Result<Self, ClientError> {
        let service = endpoint.channel()?;
        let (pipe, clock, place) = (Arc::default(), Arc::default(), Arc::default());
        Ok(Self { service, settings, request: None, sent_before: false, pipe, clock, place })
    }

    /// The shard that the calls are for.
    pub fn shard(&self) -> ShardId {
        self.settings.shard
    }

    /// The genesis of the shard that the calls are for, if the settings name it.
    pub fn genesis(&self) -> Option<Genesis> {
        self.settings.genesis
    }

    /// The place where statements for the shard hold: its site, its number, and its genesis, the random bytes with
    /// which it began. The client asks once.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::AnotherShard`] or [`ClientError::AnotherNumber`] if the node names another shard
    /// than the client is for.
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

    /// What kind of call a request of this name is.
    pub(crate) fn asked<'a>(&self, name: &'a str) -> Asked<'a> {
        if self.sent_before { Asked::Again(name) } else { Asked::First(name) }
    }

    /// Returns a client whose next call is the request of this name, sent for the first time or again; without a name
    /// it is a new request. The shard refuses the request once this many milliseconds have passed since its first
    /// sending. The client is for one request: the shard refuses another one under the same name.
    ///
    /// A request that is sent again is in doubt until the shard says what became of it: if the shard refuses it as too
    /// old, or no node answers, the call returns [`ClientError::Unknown`].
    ///
    /// # Errors
    /// [`ClientError`] if the client cannot learn the shard's clock.
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

    /// How long the shard takes a request, in milliseconds: for as long as the client sends it, so that the last
    /// sending tells as much as the first one.
    fn valid_ms(&self) -> u64 {
        let Patience { total, in_doubt, .. } = self.patience();
        let sent_for_ms = u64::try_from(total.saturating_add(in_doubt).as_millis()).unwrap_or(u64::MAX);
        sent_for_ms.clamp(limits::REQUEST_DEADLINE_MS_DEFAULT, limits::REQUEST_DEADLINE_MS_MAX)
    }

    /// The shard's clock: the client asks once a minute, and counts on from the answer. It counts too little rather
    /// than too much, so that no request seems to come from the future.
    pub(crate) async fn shard_clock(&self) -> Result<LogInstant, ClientError> {
        const ASK_AGAIN: Duration = Duration::from_secs(60);
        let known = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((clock, at)) = known.filter(|(_, at)| at.elapsed() < ASK_AGAIN) {
            let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
            return Ok(clock.plus_ms(since - since / 1_000));
        }
        let clock = LogInstant::from_raw(self.clock().await?.clock);
        // The count starts when the answer arrives, so it stays behind the shard's own clock.
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock, Instant::now()));
        Ok(clock)
    }

    /// Forgets the shard's clock when it turned out to be wrong (the machine slept, or the shard began a new era), and
    /// the place where statements hold when the shard was made anew, so that the next request asks for it.
    pub(crate) fn mind_shard<T>(&self, result: &Result<T, ClientError>) {
        let Err(error) = result else { return };
        if error.is_of_another_shard() {
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        // The shard may have refused for its clock what is in doubt, too.
        if error.is_of_another_clock() || matches!(error, ClientError::Unknown { .. }) {
            *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}
