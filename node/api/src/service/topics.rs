//! Topics: the API publishes and delivers values of the data plane.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt as _};
use skep_proto::{convert, v1};
use skep_protocol::limits;
use skep_protocol::text::SiteName;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Caller, Host, Messages};
use crate::calls::{Call, TopicTold};
use crate::drain::until;
use crate::failure::Failed;

/// The number of the next subscriber.
static NEXT_SUBSCRIBER: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
pub(crate) struct Topics {
    host: Host,
    site: SiteName,
}

impl Topics {
    pub(crate) fn new(host: Host, site: SiteName) -> Self {
        Self { host, site }
    }

    async fn take(&self, request: v1::PublishRequest) -> Result<(), Failed> {
        let publication = convert::publication(request, &self.site)?;
        let taken = self.host.calls.publish(publication).await;
        if taken { Ok(()) } else { Err(Failed::stopping()) }
    }

    pub(crate) async fn publish(&self, request: v1::PublishRequest) -> Result<v1::PublishReply, Failed> {
        self.take(request).await?;
        Ok(v1::PublishReply { taken: 1 })
    }

    /// Takes publications until the stream ends. The first one that the node refuses, or that the transport fails to
    /// bring, ends it.
    pub(crate) async fn publish_stream<Error: From<Failed>>(
        &self,
        caller: Caller,
        mut publications: impl Stream<Item = Result<v1::PublishRequest, Error>> + Unpin,
    ) -> Result<v1::PublishReply, Error> {
        let _place = self.host.lasting(&caller)?;
        let mut taken = 0;
        while let Some(publication) = publications.next().await.transpose()? {
            self.take(publication).await?;
            taken += 1;
        }
        Ok(v1::PublishReply { taken })
    }

    pub(crate) async fn subscribe(
        &self,
        caller: Caller,
        request: v1::SubscribeRequest,
    ) -> Result<Messages<v1::TopicValue>, Failed> {
        let place = self.host.lasting(&caller)?;
        let topics = request.topics.iter().map(|topic| convert::topic(topic, &self.site));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        let subscriber = NEXT_SUBSCRIBER.fetch_add(1, Ordering::Relaxed);
        let (values, stream) = mpsc::channel::<TopicTold>(limits::VALUES_QUEUED_MAX);
        // The watcher has a sender of its own, which does not keep the stream open.
        let watcher = values.downgrade();
        if !self.host.calls.tell(Call::Subscribe { subscriber, topics, values }).await {
            return Err(Failed::stopping());
        }
        let calls = self.host.calls.clone();
        tokio::spawn(async move {
            if let Some(values) = watcher.upgrade() {
                values.closed().await;
            }
            calls.tell(Call::Unsubscribe { subscriber }).await;
        });
        let values = ReceiverStream::new(stream).map(|told| match told {
            TopicTold::Value { publication, sender, age_ms } => {
                Ok(convert::value_to_proto(&publication, sender, age_ms))
            }
            TopicTold::Refused => Err(Failed::too_many_topics()),
        });
        Ok(place.around(values.take_until(until(self.host.stopped.clone()))).boxed())
    }
}
