//! The data plane's service.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use skep_proto::convert;
use skep_proto::v1;
use skep_proto::v1::topics_server::Topics;
use skep_protocol::limits;
use skep_protocol::text::SiteName;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::calls::{Call, Calls, TopicTold};
use crate::doors::Doors;
use crate::drain::until;
use crate::failure::Failed;

/// Names subscribers.
static NEXT_SUBSCRIBER: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
pub(crate) struct TopicService {
    calls: Calls,
    site: SiteName,
    doors: Doors,
    stopped: watch::Receiver<bool>,
}

impl TopicService {
    pub(crate) fn new(calls: Calls, site: SiteName, doors: Doors, stopped: watch::Receiver<bool>) -> Self {
        Self { calls, site, doors, stopped }
    }

    async fn take(&self, request: v1::PublishRequest) -> Result<(), Status> {
        let publication = convert::publication(request, &self.site).map_err(|e| Failed::field(&e).into_status())?;
        let taken = self.calls.publish(publication).await;
        if taken { Ok(()) } else { Err(Failed::stopping().into_status()) }
    }
}

#[tonic::async_trait]
impl Topics for TopicService {
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishReply>, Status> {
        self.take(request.into_inner()).await?;
        Ok(Response::new(v1::PublishReply { taken: 1 }))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<v1::PublishReply>, Status> {
        let _place = self.doors.lasting(request.extensions().get())?;
        let mut publications = request.into_inner();
        let mut taken = 0;
        while let Some(publication) = publications.message().await? {
            self.take(publication).await?;
            taken += 1;
        }
        Ok(Response::new(v1::PublishReply { taken }))
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<v1::TopicValue, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let place = self.doors.lasting(request.extensions().get())?;
        let topics: Result<Vec<_>, _> =
            request.into_inner().topics.iter().map(|topic| convert::topic(topic, &self.site)).collect();
        let topics = topics.map_err(|e| Failed::field(&e).into_status())?;
        let subscriber = NEXT_SUBSCRIBER.fetch_add(1, Ordering::Relaxed);
        let (values, stream) = mpsc::channel::<TopicTold>(limits::VALUES_QUEUED_MAX);
        // A watcher of its own, which does not keep the stream open.
        let watcher = values.downgrade();
        if !self.calls.tell(Call::Subscribe { subscriber, topics, values }).await {
            return Err(Failed::stopping().into_status());
        }
        let calls = self.calls.clone();
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
            TopicTold::Refused => Err(Failed::too_many_topics().into_status()),
        });
        let values = futures::StreamExt::take_until(values, until(self.stopped.clone()));
        Ok(Response::new(Box::pin(place.around(values))))
    }
}
