//! The nodes whose envelopes count.

use std::collections::BTreeSet;

use skep_protocol::ids::NodeId;
use skep_protocol::text::AgentId;

use crate::admit::{Members, may_publish};

/// Why the words of a node do not count here. They may count elsewhere: a neighbour that passes them on did no wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeard {
    /// The node is not admitted here.
    Stranger,
    /// The node is admitted, and may not say this.
    NotIts,
}

/// The nodes whose envelopes count.
#[derive(Clone, Debug)]
pub(crate) enum Speakers {
    /// The listed peers. The driver decides for which agents they speak.
    Listed(BTreeSet<NodeId>),
    /// The members of the site that this node has met, each for the agents that its certificate names.
    Members(Members),
}

impl Speakers {
    /// Whether a node may speak for an agent.
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

    /// Whether the node remembers over restarts how far a sender has come. At the start the node has not met any member
    /// yet.
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
