//! How streams end when the node stops.

use tokio::sync::watch;

/// Waits until the API has to stop.
pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
