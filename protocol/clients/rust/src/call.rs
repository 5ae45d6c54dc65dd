//! One request or query, sent as often as that helps.

use std::future::Future;
use std::time::Duration;

use skep_proto::v1::Failure;
use skep_protocol::code::Code;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::error::{ClientError, Heard, heard};

/// The shortest and longest wait between two sendings.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How a call is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long the caller waits in all, as long as nothing is in doubt.
    pub(crate) total: Duration,
    /// How long one sending may take.
    pub(crate) each: Duration,
    /// How long the call goes on at least after the first doubt: only another sending settles that.
    pub(crate) in_doubt: Duration,
}

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// A query, which changes nothing and is never in doubt.
    Query,
    /// The request of this name, which was never sent before.
    First(&'a str),
    /// The request of this name, which was sent before and may have been done.
    Again(&'a str),
}

impl<'a> Asked<'a> {
    /// The name of the request; empty for a query.
    fn name(self) -> &'a str {
        match self {
            Self::Query => "",
            Self::First(name) | Self::Again(name) => name,
        }
    }
}

/// What a failed sending means for the call.
enum Verdict {
    End(ClientError),
    Again { after: Duration },
}

/// What the client knows of a call so far.
struct Call<'a> {
    asked: Asked<'a>,
    in_doubt: bool,
    last: Option<Box<Failure>>,
    last_text: String,
    wait: Duration,
}

impl<'a> Call<'a> {
    fn new(asked: Asked<'a>) -> Self {
        let in_doubt = matches!(asked, Asked::Again(_));
        Self { asked, in_doubt, last: None, last_text: String::new(), wait: RETRY_MIN }
    }

    fn judge(&mut self, heard: Heard) -> Verdict {
        let floor = match heard {
            Heard::InDoubt(text) => {
                self.in_doubt = !matches!(self.asked, Asked::Query);
                self.last_text = text;
                Duration::ZERO
            }
            Heard::NotDone(failure) => {
                // A refusal that is silent about earlier sendings does not end a doubt about them.
                if self.in_doubt && failure.silent_about_earlier && !failure.retryable {
                    let too_late = is_too_late(&failure);
                    return Verdict::End(self.unknown(failure.message, too_late));
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

    fn unknown(&self, last: String, too_late: bool) -> ClientError {
        ClientError::Unknown { request_id: self.asked.name().to_owned(), last, too_late }
    }

    /// Ends the call when no time is left.
    fn give_up(self) -> ClientError {
        match self.last {
            Some(failure) if !self.in_doubt => ClientError::NotDone(failure),
            _ => {
                let last = self.last_text.clone();
                self.unknown(last, false)
            }
        }
    }
}

/// Whether the shard refused a request for its age, which no later sending can change.
fn is_too_late(failure: &Failure) -> bool {
    Code::of(&failure.code).is_some_and(Code::is_too_late)
}

/// Sends until there is an answer that another sending cannot improve: the same message each time, with the id and the
/// clock of the first sending.
pub(crate) async fn send<T, R, F>(
    asked: Asked<'_>,
    message: &T,
    patience: Patience,
    mut sending: impl FnMut(Request<T>) -> F,
) -> Result<R, ClientError>
where
    T: Clone,
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut give_up_at = Instant::now() + patience.total;
    let mut call = Call::new(asked);
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
        let was_in_doubt = call.in_doubt;
        let after = match call.judge(heard) {
            Verdict::End(error) => return Err(error),
            Verdict::Again { after } => after,
        };
        if call.in_doubt && !was_in_doubt {
            give_up_at = give_up_at.max(Instant::now() + patience.in_doubt);
        }
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
    use skep_proto::v1::Certainty;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    const PATIENCE: Patience =
        Patience { total: Duration::from_secs(5), each: Duration::from_secs(1), in_doubt: Duration::from_secs(2) };

    fn refusal(retryable: bool, silent: bool) -> Status {
        refusal_as(Code::LostRace, retryable, silent)
    }

    fn refusal_as(code: Code, retryable: bool, silent: bool) -> Status {
        let failure = Failure {
            code: code.to_string(),
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

    /// Plays a script of answers; returns the result and how often the call was sent, every time the same.
    async fn play(script: Vec<Result<u8, Status>>) -> (Result<u8, ClientError>, usize) {
        play_as(Asked::First("id"), script).await
    }

    async fn play_as(asked: Asked<'_>, script: Vec<Result<u8, Status>>) -> (Result<u8, ClientError>, usize) {
        let script = RefCell::new(VecDeque::from(script));
        let sent = RefCell::new(0);
        let sending = |request: Request<&'static str>| {
            assert_eq!(*request.get_ref(), "body");
            *sent.borrow_mut() += 1;
            let next = script.borrow_mut().pop_front().unwrap_or_else(|| Err(lost()));
            async move { next.map(Response::new) }
        };
        let result = send(asked, &"body", PATIENCE, sending).await;
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

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_again_too_late_is_unknown_and_so_is_one_that_reaches_nobody() {
        for late in [Code::RequestExpired, Code::RequestForgotten] {
            let (result, sent) = play_as(Asked::Again("id"), vec![Err(refusal_as(late, false, true))]).await;
            assert!(matches!(result, Err(ClientError::Unknown { too_late: true, .. })), "{late}: {result:?}");
            assert_eq!(sent, 1, "nothing that is sent after it is sooner");
            let (result, _) = play(vec![Err(refusal_as(late, false, true))]).await;
            assert!(matches!(result, Err(ClientError::NotDone(_))), "{late}: it was never sent before: {result:?}");
        }
        let refusals = (0..1_000).map(|_| Err(refusal(true, false))).collect();
        let (result, _) = play_as(Asked::Again("id"), refusals).await;
        assert!(matches!(result, Err(ClientError::Unknown { too_late: false, .. })), "{result:?}");
        // The shard, which remembers the request, knows.
        let (result, _) = play_as(Asked::Again("id"), vec![Err(refusal(false, false))]).await;
        assert!(matches!(result, Err(ClientError::NotDone(_))), "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_that_comes_when_time_is_nearly_up_is_settled_by_sending_again() {
        // The node refuses it for as long as the caller is patient, but for the last moment.
        let begun = Instant::now();
        let sent = RefCell::new(0);
        let sending = |_: Request<&'static str>| {
            *sent.borrow_mut() += 1;
            let (elapsed, doubtful) = (begun.elapsed(), Duration::from_secs(4));
            async move {
                if elapsed < doubtful {
                    Err(refusal(true, false))
                } else if elapsed < PATIENCE.total {
                    // No answer arrives.
                    std::future::pending().await
                } else {
                    Ok(Response::new(7))
                }
            }
        };
        let result: Result<u8, ClientError> = send(Asked::First("id"), &"body", PATIENCE, sending).await;
        assert_eq!(result, Ok(7), "after {} sendings", sent.borrow());
    }
}
