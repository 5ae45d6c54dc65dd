//! Sending a request again of which nobody knew whether it was done.

use clap::Args;
use skep_client::{Client, RequestName};

use super::Failure;

/// For how long a request that was typed can be sent again, in milliseconds. After that it is refused if it was not done.
const RESEND_WITHIN_MS: u64 = 10 * 60 * 1_000;

/// Under which name a request is sent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Resend {
    /// Send a request again that is in doubt, under the name that the error gave it: it is done once, however often it is sent. A UUID of your own serves for the first time
    #[arg(long, value_name = "REQUEST")]
    pub(crate) request_id: Option<RequestName>,
}

impl Resend {
    /// The client for the one command that is asked for.
    pub(crate) async fn client(&self, client: &Client) -> Result<Client, Failure> {
        Ok(client.under(self.request_id, RESEND_WITHIN_MS).await?)
    }
}
