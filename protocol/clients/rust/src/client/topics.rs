//! Topics: values that are published once, and of which the latest counts.

use skep_proto::v1;
use skep_proto::v1::topics_client::TopicsClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Client;
use super::calls::definite;
use crate::error::ClientError;

impl Client {
    /// Publishes a value on a topic: best effort, latest wins.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn publish(&self, publication: v1::PublishRequest) -> Result<(), ClientError> {
        let mut service = TopicsClient::new(self.service());
        service.publish(publication).await.map(drop).map_err(|status| definite(&status))
    }

    /// Publishes what comes out of a channel until it is closed; returns how many publications the node took.
    ///
    /// # Errors
    /// [`ClientError`] if the connection to the node ended meanwhile.
    pub async fn publish_all(&self, publications: mpsc::Receiver<v1::PublishRequest>) -> Result<u64, ClientError> {
        let mut service = TopicsClient::new(self.service());
        let published = service.publish_stream(ReceiverStream::new(publications)).await;
        published.map(|reply| reply.into_inner().taken).map_err(|status| definite(&status))
    }

    /// Streams the latest value of every source on these topics, with its age, then new ones as the node hears them.
    ///
    /// # Errors
    /// [`ClientError`]. The stream's own errors come as gRPC statuses.
    pub async fn subscribe(&self, topics: &[&str]) -> Result<Streaming<v1::TopicValue>, ClientError> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let mut service = TopicsClient::new(self.service());
        let subscribed = service.subscribe(v1::SubscribeRequest { topics }).await;
        subscribed.map(tonic::Response::into_inner).map_err(|status| definite(&status))
    }
}
