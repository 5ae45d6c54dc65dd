//! One command or query, sent as often as it takes.

use std::future::Future;
use std::time::Duration;

use skep_protocol::v1::Failure;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::error::{ClientError, Heard, heard};

/// Shortest and longest wait between sendings.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How a call is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the caller waits in all.
    pub(crate) total: Duration,
    /// How long one sending may take.
    pub(crate) each: Duration,
}

/// What a sending that failed means for the call.
enum Verdict {
    End(ClientError),
    Again { after: Duration },
}

/// What is known of a call so far.
struct Call<'a> {
    /// Empty for a query, which cannot be in doubt.
    request_id: &'a str,
    in_doubt: bool,
    last: Option<Box<Failure>>,
    last_text: String,
    wait: Duration,
}

impl Call<'_> {
    fn judge(&mut self, heard: Heard) -> Verdict {
        let floor = match heard {
            Heard::InDoubt(text) => {
                self.in_doubt = !self.request_id.is_empty();
                self.last_text = text;
                Duration::ZERO
            }
            Heard::NotDone(failure) => {
                // A refusal that is silent about earlier sendings does not end a doubt about them.
                if self.in_doubt && failure.silent_about_earlier && !failure.retryable {
                    return Verdict::End(self.unknown(failure.message));
                }
                if !failure.retryable {
                    return Verdict::End(ClientError::NotDone(failure));
                }
                let after = Duration::from_millis(failure.retry_after_ms);
                self.last_text = failure.message.clone();
                self.last = Some(failure);
                after
            }
        };
        let jittered = self.wait.mul_f64(rand::random_range(0.5..1.0));
        self.wait = (self.wait * 2).min(RETRY_MAX);
        Verdict::Again { after: jittered.max(floor.min(RETRY_MAX)) }
    }

    fn unknown(&self, last: String) -> ClientError {
        ClientError::Unknown { request_id: self.request_id.to_owned(), last }
    }

    /// There is no time left.
    fn give_up(self) -> ClientError {
        match self.last {
            Some(failure) if !self.in_doubt => ClientError::NotDone(failure),
            _ => {
                let last = self.last_text.clone();
                self.unknown(last)
            }
        }
    }
}

/// Sends until there is an answer that sending again cannot better. `request_id` is empty for a query.
pub(crate) async fn send<T, R, F>(
    request_id: &str,
    message: &T,
    patience: Patience,
    mut sending: impl FnMut(Request<T>) -> F,
) -> Result<R, ClientError>
where
    T: Clone,
    F: Future<Output = Result<Response<R>, Status>>,
{
    let give_up_at = Instant::now() + patience.total;
    let mut call = Call { request_id, in_doubt: false, last: None, last_text: String::new(), wait: RETRY_MIN };
    loop {
        let left = give_up_at.saturating_duration_since(Instant::now());
        let timeout = patience.each.min(left).max(Duration::from_millis(1));
        let mut request = Request::new(message.clone());
        request.set_timeout(timeout);
        let heard = match tokio::time::timeout(timeout, sending(request)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => heard(&status),
            Err(_) => Heard::InDoubt(format!("no answer within {timeout:?}")),
        };
        let after = match call.judge(heard) {
            Verdict::End(error) => return Err(error),
            Verdict::Again { after } => after,
        };
        if Instant::now() + after >= give_up_at {
            return Err(call.give_up());
        }
        tokio::time::sleep(after).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use skep_protocol::v1::Certainty;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    const PATIENCE: Patience = Patience { total: Duration::from_secs(5), each: Duration::from_secs(1) };

    fn refusal(retryable: bool, silent: bool) -> Status {
        let failure = Failure {
            code: "SKEP-9".into(),
            certainty: Certainty::NotDone.into(),
            retryable,
            silent_about_earlier: silent,
            ..Failure::default()
        };
        Status::with_details(tonic::Code::Aborted, "", failure.encode_to_vec().into())
    }

    fn lost() -> Status {
        Status::unavailable("the connection ended")
    }

    /// Plays a script of answers; the result and how often it was sent, every time the same.
    async fn play(script: Vec<Result<u8, Status>>) -> (Result<u8, ClientError>, usize) {
        let script = RefCell::new(VecDeque::from(script));
        let sent = RefCell::new(0);
        let sending = |request: Request<&'static str>| {
            assert_eq!(*request.get_ref(), "body");
            *sent.borrow_mut() += 1;
            let next = script.borrow_mut().pop_front().unwrap_or_else(|| Err(lost()));
            async move { next.map(Response::new) }
        };
        let result = send("id", &"body", PATIENCE, sending).await;
        (result, sent.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_asked_for_again_and_found() {
        assert_eq!(play(vec![Err(lost()), Err(refusal(true, false)), Ok(7)]).await, (Ok(7), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_definite_refusal_ends_the_call_at_once() {
        let (result, sent) = play(vec![Err(refusal(false, false))]).await;
        assert!(matches!(result, Err(ClientError::NotDone(_))));
        assert_eq!(sent, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn doubt_is_sticky_under_a_refusal_that_is_silent_about_earlier_sendings() {
        let (result, _) = play(vec![Err(lost()), Err(refusal(false, true))]).await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })));
        let (result, _) = play(vec![Err(refusal(false, true))]).await;
        assert!(matches!(result, Err(ClientError::NotDone(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_runs_out_of_time_is_unknown_if_it_may_have_been_done() {
        let (result, sent) = play(vec![]).await;
        assert!(matches!(result, Err(ClientError::Unknown { .. })));
        assert!(sent > 3, "{sent}");
        let refusals = (0..1_000).map(|_| Err(refusal(true, false))).collect();
        let (result, _) = play(refusals).await;
        assert!(matches!(result, Err(ClientError::NotDone(_))));
    }
}
