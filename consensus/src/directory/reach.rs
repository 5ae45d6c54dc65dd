//! Asking the leader of the directory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::attempt::AttemptTarget;
use skep_protocol::entry::Request;
use skep_protocol::ids::{NodeId, RequestId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::query::{Answer, Query, QueryFailure, QueryReply};
use skep_protocol::refusal::Refusal;
use skep_protocol::site::{SiteAnswer, SiteOp, SiteQuery};
use skep_protocol::time::LogInstant;
use tokio::time::timeout;

use crate::rpc::propose;
use crate::shards::Shards;

/// How long a leader is looked for, and its answer waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is waited once no node that is known leads.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the directory did not do something.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No leader answered. It may have been done all the same.
    #[error("the directory of the site has no leader that this node reaches; try again")]
    NoLeader,
    /// It answered something else.
    #[error("the directory of the site does not answer what it is asked")]
    OtherAnswer,
}

/// The directory of this node's site. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Directory {
    pub(super) shards: Arc<Shards>,
}

/// What is asked.
enum Asked {
    Query(Query),
    Change(Box<Request>),
}

/// What is answered.
enum Said {
    Query(Box<QueryReply>),
    Change(Result<(), Box<Refusal>>),
}

/// How one node answered.
enum Tried {
    Said(Said),
    /// Another one leads.
    Elsewhere(LeaderHint),
    /// It may answer later.
    Later,
}

impl Directory {
    pub(crate) fn new(shards: Arc<Shards>) -> Self {
        Self { shards }
    }

    /// Asks for everything that was acknowledged before; also the clock of the directory's log, by which a change is
    /// asked for.
    pub(super) async fn ask(&self, query: SiteQuery) -> Result<(SiteAnswer, LogInstant), AskError> {
        let Said::Query(reply) = self.at_leader(&Asked::Query(Query::Site(query))).await? else {
            return Err(AskError::OtherAnswer);
        };
        match reply.answer {
            Answer::Site(answer) => Ok((answer, reply.as_of.clock.unwrap_or(reply.as_of.stamp))),
            _ => Err(AskError::OtherAnswer),
        }
    }

    /// Has the directory do something.
    pub(super) async fn change(&self, op: SiteOp, clock: LogInstant) -> Result<(), AskError> {
        let deadline = clock.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT);
        let id = RequestId::from_bytes(self.random());
        let request = Request { id, first_sent: clock, deadline, op: op.into() };
        match self.at_leader(&Asked::Change(Box::new(request))).await? {
            Said::Change(done) => done.map_err(AskError::Refused),
            Said::Query(_) => Err(AskError::OtherAnswer),
        }
    }

    pub(super) fn random(&self) -> [u8; 16] {
        let chance = &self.shards.parts.chance;
        ((u128::from(chance.next()) << 64) | u128::from(chance.next())).to_be_bytes()
    }

    async fn at_leader(&self, asked: &Asked) -> Result<Said, AskError> {
        timeout(PATIENCE, self.until_said(asked)).await.map_err(|_| AskError::NoLeader)
    }

    /// Tries the nodes that may lead, one after another, until one does.
    async fn until_said(&self, asked: &Asked) -> Said {
        let mut hint = self.shards.hearsay(ShardId::DIRECTORY);
        loop {
            let (mut tried, mut next) = (BTreeSet::new(), Some(AttemptTarget::Local));
            while let Some(target) = next {
                tried.insert(target);
                match self.attempt(target, asked).await {
                    Tried::Said(said) => return said,
                    Tried::Elsewhere(heard) if heard != LeaderHint::default() => hint = heard,
                    Tried::Elsewhere(_) | Tried::Later => {}
                }
                next = self.who_may_lead(&hint).into_iter().find(|target| !tried.contains(target));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Connected nodes that may lead or know who does, the most likely one first.
    fn who_may_lead(&self, hint: &LeaderHint) -> Vec<AttemptTarget> {
        let parts = &self.shards.parts;
        let voters = parts.peers.members_that_vote();
        let named = hint.leader.iter().chain(hint.voters.iter()).chain(&voters).copied();
        let others = named.filter(|node: &NodeId| *node != parts.node && parts.peers.connected(*node).is_some());
        others.map(AttemptTarget::Node).collect()
    }

    async fn attempt(&self, target: AttemptTarget, asked: &Asked) -> Tried {
        match asked {
            Asked::Query(query) => match self.query(target, query).await {
                // Its first entry is not applied there yet.
                Ok(QueryReply { answer: Answer::Site(SiteAnswer::NoSite), .. }) => Tried::Later,
                Ok(reply) => Tried::Said(Said::Query(Box::new(reply))),
                Err(QueryFailure::NotLeader(hint) | QueryFailure::NoReplica(hint)) => Tried::Elsewhere(hint),
                Err(QueryFailure::NoQuorum | QueryFailure::Overloaded | QueryFailure::Storage(_)) => Tried::Later,
            },
            Asked::Change(request) => {
                let outcomes = propose(&self.shards, ShardId::DIRECTORY, target, vec![Request::clone(request)]).await;
                match outcomes.into_iter().next() {
                    Some(ProposeOutcome::Applied { reply: Reply::Done(_), .. }) => Tried::Said(Said::Change(Ok(()))),
                    Some(
                        ProposeOutcome::Applied { reply: Reply::Refused(refusal), .. }
                        | ProposeOutcome::Refused(refusal),
                    ) => Tried::Said(Said::Change(Err(Box::new(refusal)))),
                    Some(ProposeOutcome::NotLeader(hint)) => Tried::Elsewhere(hint),
                    _ => Tried::Later,
                }
            }
        }
    }

    async fn query(&self, target: AttemptTarget, query: &Query) -> Result<QueryReply, QueryFailure> {
        match target {
            AttemptTarget::Local => match self.shards.shard(ShardId::DIRECTORY) {
                Some(shard) => shard.query_linearizable(query.clone()).await,
                None => Err(QueryFailure::NoReplica(self.shards.hearsay(ShardId::DIRECTORY))),
            },
            AttemptTarget::Node(node) => self.shards.parts.query(node, ShardId::DIRECTORY, query).await,
        }
    }
}
