//! Following what the log of a shard says, whatever happens to the node meanwhile.

use std::time::Duration;

use skep_client::{Client, ClientError, Streaming};

use super::Failure;
use super::output::{reader_gone, tell};

/// How soon a node that went away is asked again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Where a watcher has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// The index to go on from: that of the last event, of whose entry there may be more, or the first one wanted.
    from: u64,
    /// Events of that index that were told.
    told: usize,
}

impl Cursor {
    /// Takes note of an event; whether it is to be told. `again`: events of the stream that were told on an earlier one.
    fn take(&mut self, index: u64, again: &mut usize) -> bool {
        if index == self.from && *again > 0 {
            *again -= 1;
            return false;
        }
        self.told = if index == self.from { self.told + 1 } else { 1 };
        self.from = index;
        true
    }
}

/// Says once that something went on without the watcher, and once that it goes on with it.
#[derive(Debug, Default)]
pub(super) struct Outage {
    tells: bool,
}

impl Outage {
    /// There was no answer, or the stream broke off.
    pub(super) fn began(&mut self, why: &str) {
        if !self.tells {
            tell(&format!("no answer for now: {why}; waiting for one"));
        }
        self.tells = true;
    }

    /// There is one again.
    pub(super) fn ended(&mut self, goes_on: &str) {
        if std::mem::take(&mut self.tells) {
            tell(&format!("there is an answer again; {goes_on}"));
        }
    }
}

/// Whether asking again can help, now or when the node runs again.
pub(super) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::NotDone(failure) => failure.retryable,
        ClientError::Unknown { .. } => true,
        ClientError::AnotherShard { .. } | ClientError::AnotherNumber { .. } | ClientError::Endpoint(_) => false,
    }
}

/// Prints events from an index on as they happen, or what is new if there is none, until nobody reads them any more.
///
/// A node that is not there, or stops, or restarts, is waited for, and begun with again where it broke off: the log has what
/// was missed. What waiting cannot help ends it, with an error.
pub(super) async fn follow<Event>(
    client: &Client,
    from: Option<u64>,
    open: impl AsyncFn(u64) -> Result<Streaming<Event>, ClientError>,
    index: impl Fn(&Event) -> u64,
    print: impl Fn(Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let following = async {
        let mut outage = Outage::default();
        let mut cursor = from.map(|from| Cursor { from, told: 0 });
        loop {
            let broke_off = match follow_once(client, &mut cursor, &mut outage, &open, &index, &print).await {
                Ok(()) => "the stream ended".to_owned(),
                Err(Broken::By(failure)) => return Err(failure),
                Err(Broken::Off(error)) if may_pass(&error) => error.to_string(),
                Err(Broken::Off(error)) => return Err(error.into()),
            };
            outage.began(&broke_off);
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    };
    tokio::select! {
        ended = following => ended,
        () = reader_gone() => Err(Failure::reader_gone()),
    }
}

/// Why a stream is not followed any more.
enum Broken {
    /// The node.
    Off(ClientError),
    /// What is done with its events.
    By(Failure),
}

async fn follow_once<Event>(
    client: &Client,
    cursor: &mut Option<Cursor>,
    outage: &mut Outage,
    open: &impl AsyncFn(u64) -> Result<Streaming<Event>, ClientError>,
    index: &impl Fn(&Event) -> u64,
    print: &impl Fn(Event) -> Result<(), Failure>,
) -> Result<(), Broken> {
    let mut at = match *cursor {
        Some(cursor) => cursor,
        // From what this replica has now, and not from what another process of the node finds later: nothing is missed.
        None => {
            let applied = client.shard_status().await.map_err(Broken::Off)?.applied_index;
            Cursor { from: applied + 1, told: 0 }
        }
    };
    *cursor = Some(at);
    let mut events = open(at.from).await.map_err(Broken::Off)?;
    outage.ended(&format!("following from entry {}", at.from));
    let mut again = at.told;
    loop {
        let event = events.message().await.map_err(|status| Broken::Off(ClientError::of_stream(&status)))?;
        let Some(event) = event else { return Ok(()) };
        if at.take(index(&event), &mut again) {
            print(event).map_err(Broken::By)?;
        }
        *cursor = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_goes_on_tells_each_event_once() {
        // nats-io/nats.net.v1#804
        let log = [4_u64, 4, 4, 6, 9, 9, 9];
        for breaks in 0..log.len() {
            let (mut cursor, mut told) = (Cursor { from: 3, told: 0 }, Vec::new());
            for stream in [&log[..breaks], &log[..]] {
                let mut again = cursor.told;
                let from = cursor.from;
                for index in stream.iter().filter(|index| **index >= from) {
                    if cursor.take(*index, &mut again) {
                        told.push(*index);
                    }
                }
            }
            assert_eq!(told, log, "broken off after {breaks}");
        }
    }

    #[test]
    fn a_watch_ends_only_for_what_waiting_does_not_help() {
        let refused = |retryable| {
            let failure = skep_client::v1::Failure { retryable, ..Default::default() };
            ClientError::NotDone(Box::new(failure))
        };
        assert!(may_pass(&refused(true)) && !may_pass(&refused(false)));
        assert!(may_pass(&ClientError::Unknown { request_id: String::new(), last: String::new(), too_late: false }));
        assert!(!may_pass(&ClientError::Endpoint(String::new())));
    }
}
