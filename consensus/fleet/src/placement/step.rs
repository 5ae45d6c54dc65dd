//! The words of placement: a step, and its reason.

use std::fmt;

use skep_protocol::ids::NodeId;

use super::world::Seat;

/// One change of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The leader sends the log to a node that does not vote.
    AddLearner(Seat),
    /// Learners get a vote, all from the same moment: where two are added at once, the number of voters stays odd.
    Promote(Vec<Seat>),
    /// Members leave, all from the same moment: voters, or learners.
    Remove(Vec<Seat>),
    /// A learner votes in place of a voter.
    Replace {
        /// The voter that leaves.
        out: Seat,
        /// The learner that votes.
        into: Seat,
    },
    /// The leader hands the lead to this voter.
    TransferLead(Seat),
    /// The group stays as it is.
    Nothing,
}

impl Step {
    /// The members that come, or get a vote.
    pub(super) fn comes(&self) -> &[Seat] {
        match self {
            Self::AddLearner(seat) => std::slice::from_ref(seat),
            Self::Promote(seats) => seats,
            Self::Replace { into, .. } => std::slice::from_ref(into),
            Self::Remove(_) | Self::TransferLead(_) | Self::Nothing => &[],
        }
    }

    /// The members that go.
    pub(super) fn goes(&self) -> &[Seat] {
        match self {
            Self::Remove(seats) => seats,
            Self::Replace { out, .. } => std::slice::from_ref(out),
            Self::AddLearner(_) | Self::Promote(_) | Self::TransferLead(_) | Self::Nothing => &[],
        }
    }
}

/// Why placement takes a step, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An operator chooses the voters.
    Manual,
    /// A change of voters is under way.
    UnderWay,
    /// No quorum acknowledges the leader.
    NoQuorum,
    /// The leader is new.
    JustBegun,
    /// A step was just taken.
    Pause,
    /// As many steps were taken as an hour allows.
    HourFull,
    /// A learner is still catching up.
    CatchingUp(NodeId),
    /// A voter may not vote any longer.
    MayNotVote(NodeId),
    /// A voter may not vote any longer, and the others have no quorum without it.
    KeptForQuorum(NodeId),
    /// The leader may not lead.
    MayNotLead(NodeId),
    /// The leader may not lead, and no other voter can.
    NoHeir(NodeId),
    /// A voter came back with an empty data directory.
    Wiped(NodeId),
    /// A voter is silent.
    Dead(NodeId),
    /// A voter is behind all the time.
    Slow(NodeId),
    /// A voter is silent, and no spare can take its place.
    NoSpare(NodeId),
    /// The shard may have this many voters.
    Grow(usize),
    /// The shard needs this many voters.
    Shrink(usize),
    /// This node is a better voter: by what it stores, by its failure domain, or by its power.
    Better(NodeId),
    /// The only voter gets a copy.
    Warm(NodeId),
    /// A learner is not needed.
    NotNeeded(NodeId),
    /// This node leads fewer shards, or has mains power.
    Spread(NodeId),
    /// There is one voter, and no other member.
    OneVoter,
    /// There is one voter, and a learner with a copy.
    OneVoterAndLearner(NodeId),
    /// There are this many voters, and nothing is to be done.
    Settled(usize),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("an operator chooses the voters"),
            Self::UnderWay => f.write_str("a change of voters is under way"),
            Self::NoQuorum => f.write_str("the leader has no quorum, and changes no voters without one"),
            Self::JustBegun => f.write_str("the leader is new, and looks at the nodes first"),
            Self::Pause => f.write_str("the last change is a moment old"),
            Self::HourFull => f.write_str("as many changes were made in the last hour as are allowed"),
            Self::CatchingUp(node) => write!(f, "{node} is catching up, and votes once it has the log"),
            Self::MayNotVote(node) => write!(f, "{node} may not vote any longer"),
            Self::KeptForQuorum(node) => {
                write!(
                    f,
                    "{node} may not vote any longer, and the others have no quorum without it; start them, or add \
                     a node"
                )
            }
            Self::MayNotLead(node) => write!(f, "{node} leads, and may not"),
            Self::NoHeir(node) => {
                write!(f, "{node} leads, and may not, and no other voter can take the lead; start one")
            }
            Self::Wiped(node) => write!(f, "{node} lost its data directory, and its earlier vote with it"),
            Self::Dead(node) => write!(f, "{node} is silent for too long"),
            Self::Slow(node) => write!(f, "{node} is behind the log for too long"),
            Self::NoSpare(node) => {
                write!(
                    f,
                    "{node} is silent or behind, and no spare node can vote in its place; start it, or add a node"
                )
            }
            Self::Grow(to) => write!(f, "there are nodes enough for {to} voters"),
            Self::Shrink(to) => write!(f, "{to} voters bear as much as there are nodes for"),
            Self::Better(node) => {
                write!(f, "{node} is a better voter, by what it stores, its failure domain, or its power")
            }
            Self::Warm(node) => write!(f, "{node} gets a copy of what the only voter has"),
            Self::NotNeeded(node) => write!(f, "{node} needs no copy"),
            Self::Spread(node) => write!(f, "{node} leads fewer shards, or lives on mains"),
            Self::OneVoter => f.write_str("1 voter: no failover, and no second copy; add a node that may vote"),
            Self::OneVoterAndLearner(node) => {
                write!(
                    f,
                    "1 voter: no failover; {node} has a copy; a third node that may vote, or a witness, gives failover"
                )
            }
            Self::Settled(voters) => {
                let lost = voters.saturating_sub(1) / 2;
                write!(f, "{voters} voters: the shard bears the loss of {lost}")
            }
        }
    }
}

/// A step and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The step.
    pub step: Step,
    /// The reason, which its `Display` says for people.
    pub why: Why,
}

impl Advice {
    pub(super) fn of(step: Step, why: Why) -> Self {
        Self { step, why }
    }

    pub(super) fn nothing(why: Why) -> Self {
        Self { step: Step::Nothing, why }
    }
}
