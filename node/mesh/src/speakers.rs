//! The nodes whose envelopes count.

use std::collections::BTreeSet;

use skep_protocol::ids::NodeId;
use skep_protocol::text::AgentId;

use crate::admit::{Members, may_publish};

/// Why what a node says does not count here. It may count elsewhere: a neighbour that passes it on did no wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeard {
    /// The node is not admitted here.
    Stranger,
    /// The node is, and may not say this.
    NotIts,
}

/// The nodes whose envelopes count.
#[derive(Clone, Debug)]
pub(crate) enum Speakers {
    /// The listed peers. For which agents they speak is the driver's question.
    Listed(BTreeSet<NodeId>),
    /// The members of the site that this node met, each for the agents that its certificate names.
    Members(Members),
}

impl Speakers {
    /// Whether a node may say what comes from an agent.
    pub(crate) fn check(&self, sender: NodeId, source: &AgentId) -> Result<(), NotHeard> {
        match self {
            Self::Listed(listed) if listed.contains(&sender) => Ok(()),
            Self::Listed(_) => Err(NotHeard::Stranger),
            Self::Members(members) => {
                let member = members.member(sender).ok_or(NotHeard::Stranger)?;
                if may_publish(&member, source) { Ok(()) } else { Err(NotHeard::NotIts) }
            }
        }
    }

    /// Whether it is remembered over restarts how far a sender has come. At the start no member was met yet.
    pub(crate) fn is_kept(&self, sender: &NodeId) -> bool {
        match self {
            Self::Listed(listed) => listed.contains(sender),
            Self::Members(_) => true,
        }
    }
}

#[cfg(test)]
impl<const N: usize> From<[NodeId; N]> for Speakers {
    fn from(listed: [NodeId; N]) -> Self {
        Self::Listed(listed.into())
    }
}
