//! Many requests under way on one stream.
//!
//! A call of its own costs an HTTP/2 stream, headers and a task on both sides; on a pipe it costs a message. Answers
//! are matched by request id. When the stream ends, every request on it is in doubt, and its sender decides what to do.

use std::collections::HashMap;

use prost::Message as _;
use skep_proto::v1;
use skep_proto::v1::task_reply::Result as OpResult;
use skep_proto::v1::task_request::Op;
use skep_proto::v1::task_requests_client::TaskRequestsClient;
use skep_protocol::limits;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use crate::service::Service;

type Answer = Result<OpResult, Status>;

struct Sending {
    request_id: Vec<u8>,
    op: Op,
    answer: oneshot::Sender<Answer>,
}

/// Handle of a pipe. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub(crate) struct Pipe(mpsc::Sender<Sending>);

impl Pipe {
    /// Makes a pipe that opens its stream when it is used, and again when it has ended.
    pub(crate) fn open(service: Service) -> Self {
        let (sender, sendings) = mpsc::channel(limits::STREAM_REQUESTS_MAX);
        tokio::spawn(run(service, sendings));
        Self(sender)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn send(&self, request_id: Vec<u8>, op: Op) -> Result<Response<v1::TaskReceipt>, Status> {
        let (answer, answered) = oneshot::channel();
        let sending = Sending { request_id, op, answer };
        let closed = || Status::unavailable("the client is closing");
        self.0.send(sending).await.map_err(|_| closed())?;
        match answered.await.map_err(|_| closed())?? {
            OpResult::Receipt(receipt) => Ok(Response::new(receipt)),
            OpResult::Nothing(_) => Ok(Response::new(v1::TaskReceipt::default())),
            OpResult::Failure(failure) => {
                let message = failure.message.clone();
                Err(Status::with_details(Code::Aborted, message, failure.encode_to_vec().into()))
            }
        }
    }
}

async fn run(service: Service, mut sendings: mpsc::Receiver<Sending>) {
    while let Some(first) = sendings.recv().await {
        let (requests, outgoing) = mpsc::channel(limits::STREAM_REQUESTS_MAX);
        let mut waiting = HashMap::new();
        put(&requests, &mut waiting, first).await;
        let opened = TaskRequestsClient::new(service.clone()).stream(ReceiverStream::new(outgoing)).await;
        let ended = match opened {
            Ok(replies) => serve(&mut sendings, &requests, replies.into_inner(), &mut waiting).await,
            Err(status) => status,
        };
        for answer in waiting.into_values() {
            let _ = answer.send(Err(ended.clone()));
        }
    }
}

/// Carries requests and answers until the stream ends; returns why it ended.
async fn serve(
    sendings: &mut mpsc::Receiver<Sending>,
    requests: &mpsc::Sender<v1::TaskRequest>,
    mut replies: Streaming<v1::TaskReply>,
    waiting: &mut HashMap<Vec<u8>, oneshot::Sender<Answer>>,
) -> Status {
    let mut open = true;
    loop {
        tokio::select! {
            reply = replies.message() => match reply {
                Ok(Some(v1::TaskReply { request_id, result: Some(result) })) => {
                    if let Some(answer) = waiting.remove(&request_id) {
                        let _ = answer.send(Ok(result));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Status::unavailable("the stream ended"),
                Err(status) => return status,
            },
            sending = sendings.recv(), if open => match sending {
                Some(sending) => put(requests, waiting, sending).await,
                None => open = false,
            },
        }
        if !open && waiting.is_empty() {
            return Status::unavailable("the client is closing");
        }
    }
}

async fn put(
    requests: &mpsc::Sender<v1::TaskRequest>,
    waiting: &mut HashMap<Vec<u8>, oneshot::Sender<Answer>>,
    sending: Sending,
) {
    if waiting.len() >= 2 * limits::STREAM_REQUESTS_MAX {
        // The callers of these gave up.
        waiting.retain(|_, answer| !answer.is_closed());
    }
    waiting.insert(sending.request_id, sending.answer);
    let _ = requests.send(v1::TaskRequest { op: Some(sending.op) }).await;
}
