//! Why a shard did not do what a client asked, by domain. Each refusal knows its code.

use serde::{Deserialize, Serialize};

use crate::agent::AgentRefusal;
use crate::code::{Certainty, Code};
use crate::command::CommandRefusal;
use crate::operator::OperatorRefusal;
use crate::site::SiteRefusal;
use crate::task::{InvalidSpec, TaskRefusal};
use crate::time::LogInstant;

/// Why a shard did not do what a client asked. The state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The request's id, clock readings or form do not allow it, whatever it asks for.
    #[error(transparent)]
    Request(#[from] RequestRefusal),
    /// The state of a task does not allow it.
    #[error(transparent)]
    Task(#[from] TaskRefusal),
    /// The state of an agent does not allow it.
    #[error(transparent)]
    Agent(#[from] AgentRefusal),
    /// The rights of an operator do not allow it.
    #[error(transparent)]
    Operator(#[from] OperatorRefusal),
    /// The state of a command does not allow it.
    #[error(transparent)]
    Command(#[from] CommandRefusal),
    /// The shard holds as much as it may.
    #[error("the shard is full: {count} {what}")]
    Full {
        /// What it has too much of.
        what: ShardFullOf,
        /// How much it holds, in units of what it is full of.
        count: u64,
    },
    /// The state of the site's directory does not allow it.
    #[error(transparent)]
    Site(#[from] SiteRefusal),
}

/// What is wrong with a request, whatever it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RequestRefusal {
    /// The request came after its deadline. A retry cannot tell from it whether an earlier sending was done.
    #[error("the request's deadline {deadline} passed; the shard's clock is {now}")]
    Expired {
        /// Its deadline, on the shard's clock.
        deadline: LogInstant,
        /// The shard's clock.
        now: LogInstant,
    },
    /// The shard may have forgotten its id. A retry cannot tell from it whether an earlier sending was done.
    #[error("the request was first sent at {first_sent}, and the shard remembers ids from {floor} on")]
    Forgotten {
        /// When the client first sent it, on the shard's clock.
        first_sent: LogInstant,
        /// The earliest first sending of which the shard remembers ids, on its clock.
        floor: LogInstant,
    },
    /// Another request was sent under its id.
    #[error("another request was sent under the same request id")]
    IdReused,
    /// Its clock readings cannot come from this shard.
    #[error(
        "the request's clock readings are impossible (first sent {first_sent}, deadline {deadline}, now {now}); \
         take both from the shard's clock, at most 24 h apart"
    )]
    ClockImpossible {
        /// When the client first sent it, as the request says.
        first_sent: LogInstant,
        /// Its deadline, on the shard's clock.
        deadline: LogInstant,
        /// The shard's clock.
        now: LogInstant,
    },
    /// Another leader came before the request was applied. Send it again.
    #[error("the leader that proposed the request was deposed")]
    Deposed,
    /// The shard remembers as many requests as it may that were first sent ahead of its clock. A retry cannot tell from
    /// it whether an earlier sending was done.
    #[error(
        "the request was first sent at {first_sent}, ahead of the shard's clock {now}, and the shard remembers as many \
         such requests as it may"
    )]
    SentAhead {
        /// When the client first sent it, on the shard's clock.
        first_sent: LogInstant,
        /// The shard's clock.
        now: LogInstant,
    },
    /// A field of a task, a role or a lease is out of bounds.
    #[error("invalid: {0}")]
    Invalid(#[from] InvalidSpec),
}

/// What a shard has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardFullOf {
    /// Live tasks.
    Tasks,
    /// Agents.
    Agents,
    /// Bytes of tasks.
    TaskBytes,
    /// Sets of required capabilities among pending tasks.
    Requirements,
    /// Operators.
    Operators,
    /// Commands.
    Commands,
    /// Deliveries of commands.
    Deliveries,
    /// Bytes of commands.
    CommandBytes,
    /// Replacements of its first operator.
    FirstOperators,
    /// Revoked operators that granted something that has not ended.
    RevokedOperators,
    /// Operators below one admin that the first operator made.
    OperatorBranch,
    /// Members of the site.
    SiteMembers,
    /// Invitations.
    SiteInvitations,
    /// Certificates that have not ended.
    SiteCertificates,
    /// Revocations.
    SiteRevocations,
    /// Revocations that wait for voters to leave their office.
    PendingRevocations,
}

impl ShardFullOf {
    /// How to make room, as a part of a sentence.
    fn help(self) -> &'static str {
        match self {
            Self::Tasks | Self::TaskBytes | Self::Requirements => {
                "wait until some tasks have ended, or run 'skep task cancel'"
            }
            Self::Agents => "remove agents that are gone by 'skep agent remove'",
            Self::Commands | Self::Deliveries | Self::CommandBytes => {
                "wait until some commands have ended, or run 'skep command cancel'"
            }
            Self::Operators => "revoke operators that are not needed by 'skep operator revoke'",
            Self::RevokedOperators => {
                "grant with an end (--valid-for): the shard forgets a revoked operator once all its grants have ended"
            }
            Self::OperatorBranch => "have the first operator grant it",
            Self::SiteMembers => "revoke members that are gone",
            Self::SiteInvitations => "wait until some invitations have ended, or use those that there are",
            Self::SiteCertificates => "wait until some certificates have ended, or issue them for longer",
            Self::SiteRevocations => "revoke all certificates of earlier epochs, once members have new ones",
            Self::PendingRevocations => "replace the voters that are to be revoked",
            Self::FirstOperators => "keep the present first operator: the shard remembers every replacement",
        }
    }
}

impl std::fmt::Display for ShardFullOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tasks => "live tasks",
            Self::Agents => "agents",
            Self::TaskBytes => "bytes of tasks",
            Self::Requirements => "different sets of required capabilities",
            Self::Operators => "operators",
            Self::Commands => "commands",
            Self::Deliveries => "deliveries of commands",
            Self::CommandBytes => "bytes of commands",
            Self::FirstOperators => "replacements of its first operator",
            Self::RevokedOperators => {
                "operators, with the revoked ones that the shard remembers until all that they were granted has ended"
            }
            Self::SiteMembers => "members of the site",
            Self::SiteInvitations => "invitations, with those that are remembered until their end",
            Self::SiteCertificates => "certificates that have not ended",
            Self::SiteRevocations => "revocations",
            Self::PendingRevocations => "revocations that wait for voters to leave their office",
            Self::OperatorBranch => "operators of one admin, with those below it and the revoked ones among them",
        })
    }
}

impl From<InvalidSpec> for Refusal {
    fn from(invalid: InvalidSpec) -> Self {
        RequestRefusal::from(invalid).into()
    }
}

impl RequestRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::Expired { .. } => Code::RequestExpired,
            Self::Forgotten { .. } => Code::RequestForgotten,
            Self::IdReused => Code::RequestIdReused,
            Self::ClockImpossible { .. } => Code::ClockImpossible,
            Self::Deposed => Code::Deposed,
            Self::SentAhead { .. } => Code::SentAhead,
            Self::Invalid(_) => Code::InvalidSpec,
        }
    }

    /// After how many milliseconds the shard may answer the same request otherwise; none if it will not.
    fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::SentAhead { first_sent, now } => Some(first_sent.since_ms(*now)),
            Self::Expired { .. }
            | Self::Forgotten { .. }
            | Self::IdReused
            | Self::ClockImpossible { .. }
            | Self::Deposed
            | Self::Invalid(_) => self.code().again().after_ms(),
        }
    }
}

impl Refusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(why) => why.code(),
            Self::Task(why) => why.code(),
            Self::Agent(why) => why.code(),
            Self::Operator(why) => why.code(),
            Self::Command(why) => why.code(),
            Self::Full { .. } => Code::ShardFull,
            Self::Site(why) => why.code(),
        }
    }

    /// What to do next, as a part of a sentence.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Full { what, .. } => what.help(),
            Self::Request(_)
            | Self::Task(_)
            | Self::Agent(_)
            | Self::Operator(_)
            | Self::Command(_)
            | Self::Site(_) => self.code().help(),
        }
    }

    /// After how many milliseconds the shard may answer the same request otherwise; none if it will not.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Request(why) => why.retry_after_ms(),
            Self::Agent(why) => why.retry_after_ms(),
            Self::Operator(why) => why.retry_after_ms(),
            Self::Site(why) => why.retry_after_ms(),
            Self::Task(_) | Self::Command(_) | Self::Full { .. } => self.code().again().after_ms(),
        }
    }

    /// Whether the refusal says nothing about earlier sendings of the same request. A client that has ever been in
    /// doubt about the request stays in doubt after it.
    pub fn is_silent_about_earlier(&self) -> bool {
        self.code().certainty() != Certainty::NotDone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Again;
    use crate::ids::{AttachmentId, NodeId};
    use crate::text::AgentId;

    #[test]
    fn a_shard_that_is_full_says_how_to_make_room_in_it() {
        let full = |what| Refusal::Full { what, count: 1 };
        assert!(full(ShardFullOf::Operators).help().contains("'skep operator revoke'"));
        assert!(full(ShardFullOf::Tasks).help().contains("'skep task cancel'"));
        assert_eq!(full(ShardFullOf::Agents).code(), Code::ShardFull);
    }

    #[test]
    fn only_what_may_pass_by_itself_is_asked_for_again() {
        let agent: AgentId = "r1".parse().unwrap();
        let (first_sent, now) = (LogInstant::from_raw(90), LogInstant::from_raw(50));
        let node = NodeId::from_public_key([1; 32]);
        let elsewhere = AgentRefusal::Elsewhere { agent: agent.clone(), node, lease_ms: 5_000 };
        let ended = AgentRefusal::NotAttached { agent, attachment: AttachmentId(1) };
        let asked: [(Refusal, Option<u64>); 5] = [
            (RequestRefusal::SentAhead { first_sent, now }.into(), Some(40)),
            (elsewhere.into(), Some(500)),
            (RequestRefusal::Deposed.into(), Some(100)),
            (RequestRefusal::IdReused.into(), None),
            (ended.into(), None),
        ];
        for (refusal, after_ms) in asked {
            assert_eq!(refusal.retry_after_ms(), after_ms, "{refusal}");
            assert_eq!(refusal.code().again() == Again::No, after_ms.is_none(), "{refusal}");
        }
    }

    #[test]
    fn a_refusal_for_the_age_of_a_request_says_nothing_about_earlier_sendings() {
        let (deadline, now) = (LogInstant::ZERO, LogInstant::ZERO);
        assert!(Refusal::from(RequestRefusal::Expired { deadline, now }).is_silent_about_earlier());
        assert!(!Refusal::from(RequestRefusal::IdReused).is_silent_about_earlier());
    }
}
