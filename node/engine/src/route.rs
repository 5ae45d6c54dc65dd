//! One piece of work on its way to the leader of its shard.

use std::collections::VecDeque;

use skep_protocol::heartbeat::HeartbeatFailure;
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{NotDone, ProposeOutcome, Reply};
use skep_protocol::pull::PullFailure;
use skep_protocol::query::{Query, QueryFailure};
use skep_protocol::settled::Settled;

use crate::event::{AttemptTarget, Outcome, Work};

/// What to do after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is over.
    Settle(Settled),
    /// Whoever was asked does not lead: try the leader that it named, at once, or ask another one.
    Elsewhere(LeaderHint),
    /// Try again after a wait; the reason counts if there is no time left for it.
    Wait(NotDone),
}

/// Attempts of one piece of work that are remembered, for answers that come late.
const TRIED_KEPT: usize = 8;

/// An attempt that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    attempt: u32,
    pub(crate) target: AttemptTarget,
    pub(crate) at_ms: u64,
}

/// One piece of work.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) shard: ShardId,
    pub(crate) work: Work,
    /// When its sender stops waiting.
    pub(crate) give_up_at_ms: u64,
    /// Counts attempts; an outcome of an earlier one is late.
    pub(crate) attempt: u32,
    /// When an attempt under way is given up, or the next one begins.
    pub(crate) timer_ms: u64,
    pub(crate) under_way: bool,
    /// Where the last attempt went.
    pub(crate) target: Option<AttemptTarget>,
    /// The last attempts, oldest first.
    pub(crate) tried: VecDeque<Tried>,
    /// Whether an attempt may have been carried out without our knowing. Never taken back.
    pub(crate) in_doubt: bool,
    /// Why the last attempt was not carried out.
    pub(crate) last: NotDone,
    /// How often in a row the leader named another one.
    pub(crate) follows: u32,
}

impl Route {
    /// The next attempt begins.
    pub(crate) fn begin(&mut self, target: AttemptTarget, now_ms: u64) {
        self.attempt += 1;
        (self.under_way, self.target) = (true, Some(target));
        if self.tried.len() == TRIED_KEPT {
            self.tried.pop_front();
        }
        self.tried.push_back(Tried { attempt: self.attempt, target, at_ms: now_ms });
    }

    /// An attempt, if it is not too long ago.
    pub(crate) fn tried(&self, attempt: u32) -> Option<Tried> {
        self.tried.iter().find(|tried| tried.attempt == attempt).copied()
    }

    /// Whether it is answered as soon as it can be: what waits for something says nothing of how long answers take.
    pub(crate) fn is_answered_at_once(&self) -> bool {
        !matches!(self.work, Work::Pull(_) | Work::Query(Query::CommandEnd { .. }))
    }

    /// How long its answer may take because there is nothing to tell yet, in milliseconds.
    pub(crate) fn waits_ms(&self) -> u64 {
        match &self.work {
            Work::Pull(pull) => u64::from(pull.wait_ms),
            Work::Request(_) | Work::Query(_) | Work::Heartbeat(_) => 0,
        }
    }

    /// What an attempt's outcome means.
    pub(crate) fn judge(&mut self, outcome: Outcome) -> Next {
        match outcome {
            Outcome::Propose(outcome) => self.judge_proposal(outcome),
            Outcome::Query(Ok(reply)) => Next::Settle(Settled::Read(Box::new(reply))),
            Outcome::Query(Err(failure)) => match failure {
                QueryFailure::NotLeader(hint) | QueryFailure::NoReplica(hint) => Next::Elsewhere(hint),
                QueryFailure::NoQuorum => Next::Wait(NotDone::NoQuorum),
                QueryFailure::Overloaded => Next::Wait(NotDone::Overloaded { retry_after_ms: 1 }),
                QueryFailure::Storage(why) => Next::Settle(Settled::NotDone(NotDone::Storage(why))),
            },
            Outcome::Heartbeat(Ok(reply)) => Next::Settle(Settled::Heard(reply)),
            Outcome::Heartbeat(Err(HeartbeatFailure::NotLeader(hint))) => Next::Elsewhere(hint),
            Outcome::Heartbeat(Err(HeartbeatFailure::Overloaded)) => {
                Next::Wait(NotDone::Overloaded { retry_after_ms: 1 })
            }
            Outcome::Pull(Ok(pulled)) => Next::Settle(Settled::Pulled(pulled)),
            Outcome::Pull(Err(PullFailure::NotLeader(hint))) => Next::Elsewhere(hint),
        }
    }

    fn judge_proposal(&mut self, outcome: ProposeOutcome) -> Next {
        match outcome {
            ProposeOutcome::Applied { index, stamp, reply: Reply::Done(receipt) } => {
                Next::Settle(Settled::Done { index, stamp, receipt })
            }
            ProposeOutcome::Applied { reply: Reply::Refused(refusal), .. } => {
                let in_doubt = self.in_doubt && !is_on(Mutant::DoubtForgotten);
                if in_doubt && refusal.is_silent_about_earlier() {
                    return Next::Settle(Settled::Unknown);
                }
                Next::Settle(Settled::NotDone(NotDone::Refused(refusal)))
            }
            ProposeOutcome::NotLeader(hint) => Next::Elsewhere(hint),
            ProposeOutcome::NoSuchShard => Next::Elsewhere(LeaderHint::default()),
            ProposeOutcome::Overloaded { retry_after_ms } => Next::Wait(NotDone::Overloaded { retry_after_ms }),
            ProposeOutcome::Refused(refusal) => Next::Settle(Settled::NotDone(NotDone::Refused(refusal))),
            ProposeOutcome::DiskFull => {
                let asked = match self.target {
                    Some(AttemptTarget::Node(node)) => Some(node),
                    Some(AttemptTarget::Local) | None => None,
                };
                Next::Wait(NotDone::DiskFull { node: asked })
            }
            ProposeOutcome::VotersFull { node } => Next::Wait(NotDone::DiskFull { node: Some(node) }),
            ProposeOutcome::Unknown => {
                self.in_doubt = true;
                Next::Wait(NotDone::NoQuorum)
            }
        }
    }

    /// What its sender is told when there is no time left.
    pub(crate) fn give_up(&self) -> Settled {
        let doubtful = self.in_doubt || (self.under_way && matches!(self.work, Work::Request(_)));
        if doubtful { Settled::Unknown } else { Settled::NotDone(self.last.clone()) }
    }
}

/// What an answer that only a leader gives says of it; none if it may be another's.
pub(crate) fn proof(settled: &Settled) -> Option<LeaderHint> {
    match settled {
        Settled::Heard(reply) => Some(reply.lead.clone()),
        Settled::Done { .. } | Settled::Read(_) => Some(LeaderHint::default()),
        // A pull is answered from before it waited.
        Settled::Pulled(_) | Settled::NotDone(_) | Settled::Unknown => None,
    }
}

/// The seeded bug [`Mutant::RetryUnderNewId`].
pub(crate) fn under_new_id(work: &mut Work) {
    if let Work::Request(request) = work {
        let mut id = *request.id.as_bytes();
        id[15] = !id[15];
        request.id = RequestId::from_bytes(id);
    }
}
