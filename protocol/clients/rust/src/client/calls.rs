//! How a method of the client becomes a call.
//!
//! The macros name `ClientError`, `v1` and the service as the file that uses them has imported them.

use skep_proto::v1;
use tonic::Status;

use super::Read;
use crate::error::ClientError;

macro_rules! request {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty,
     $service:ident . $method:ident, $message:ident { $($field:ident: $value:expr),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`]: not done, or unknown.
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let meta = self.meta().await?;
            let id = crate::request::RequestName::of(&meta).to_string();
            let message = v1::$message { meta: Some(meta), $($field: $value),* };
            let service = $service::new(self.service());
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            let result = crate::call::send(self.asked(&id), &message, self.patience(), sending).await;
            self.mind_shard(&result);
            result
        }
    };
}

pub(crate) use request;

macro_rules! query {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $reply:ty,
     $service:ident . $method:ident, $message:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ClientError`].
        pub async fn $name(&self, $($argument: $type),*) -> Result<$reply, ClientError> {
            let shard = self.shard().0;
            let message = ($message)(shard);
            let service = $service::new(self.service()).max_decoding_message_size(skep_protocol::limits::API_MESSAGE_BYTES_MAX);
            let sending = |request| {
                let mut service = service.clone();
                async move { service.$method(request).await }
            };
            crate::call::send(crate::call::Asked::Query, &message, self.patience(), sending).await
        }
    };
}

pub(crate) use query;

pub(crate) fn read_options(shard: u32, read: Read) -> Option<v1::ReadOptions> {
    Some(v1::ReadOptions { shard, stale: read == Read::Stale })
}

/// What a failed query means: it changes nothing, so nothing can be in doubt.
pub(crate) fn definite(status: &Status) -> ClientError {
    ClientError::of_stream(status)
}
