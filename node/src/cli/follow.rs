//! Following what the log of a shard says, whatever happens to the node meanwhile.

use std::time::Duration;

use skep_client::ClientError;

use super::Failure;

/// How soon a node that went away is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Prints events from an index on as they happen; 0 for what is new. A node that restarts is waited for, and begun with
/// again where it broke off.
pub(super) async fn follow<Event>(
    from: u64,
    open: impl AsyncFn(u64) -> Result<skep_client::Streaming<Event>, ClientError>,
    index: impl Fn(&Event) -> u64,
    print: impl Fn(Event) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut from = from;
    // Events of the index to resume at that were seen: one entry can hold many.
    let mut seen = 0;
    loop {
        let mut stream = match open(from).await {
            Ok(stream) => stream,
            Err(_) if from > 0 => {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut skip = seen;
        loop {
            match stream.message().await {
                Ok(Some(event)) if index(&event) == from && skip > 0 => skip -= 1,
                Ok(Some(event)) => {
                    seen = if index(&event) == from { seen + 1 } else { 1 };
                    from = index(&event);
                    print(event)?;
                }
                Ok(None) => break,
                // Begin again after the last index seen: the log has what was missed.
                Err(_) if from > 0 => break,
                Err(status) => return Err(Failure::failed(status)),
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
