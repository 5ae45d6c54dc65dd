//! Follows what the log of a shard says, whatever happens to the node meanwhile.

use std::time::Duration;

use skep_client::{Client, ClientError, Streaming};

use super::Failure;
use super::output::{reader_gone, tell};

/// How long a watcher waits before it asks a node again that went away.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How far a watcher has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    /// The index to go on from: that of the last event, whose entry may have more events, or the first wanted one.
    from: u64,
    /// The number of events of that index that the watcher was told.
    told: usize,
}

impl Cursor {
    /// Takes in an event. Gives whether to tell it. `again` counts the events of this stream that an earlier stream
    /// told.
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

/// Tells once that there is no answer, and once that there is one again.
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

    /// There is an answer again.
    pub(super) fn ended(&mut self, goes_on: &str) {
        if std::mem::take(&mut self.tells) {
            tell(&format!("there is an answer again; {goes_on}"));
        }
    }
}

/// Whether another try can help, at once or when the node runs again.
pub(super) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::NotDone(failure) => failure.retryable,
        ClientError::Unknown { .. } => true,
        ClientError::AnotherShard { .. } | ClientError::AnotherNumber { .. } | ClientError::Endpoint(_) => false,
    }
}

/// Prints events from an index on as they happen, or only new ones without an index, until the reader has gone away.
///
/// The watcher waits for a node that does not run, stops, or restarts, and goes on where the stream broke off: the log
/// has what it missed. A failure that waiting does not mend ends the watch with an error.
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

/// Why a stream ended.
enum Broken {
    /// The node's error.
    Off(ClientError),
    /// The failure to print an event.
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
        // The watch begins behind what this replica has applied by now, and not behind what a later process of the node
        // finds: so it misses nothing.
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
