//! What a node knows of who leads a shard, and tells others.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::limits;

/// The nodes that vote in a shard, each once and in order. Empty if they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<NodeId>", into = "Vec<NodeId>")]
pub struct Voters(Vec<NodeId>);

impl Voters {
    /// These nodes; no more than [`VOTERS_MAX`](limits::VOTERS_MAX) of them.
    pub fn of(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.truncate(limits::VOTERS_MAX);
        Self(nodes)
    }

    /// Whether a node is one of them.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains(node)
    }

    /// All voters, in order.
    pub fn iter(&self) -> impl Iterator<Item = &NodeId> {
        self.0.iter()
    }

    /// Whether the voters are not known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<NodeId>> for Voters {
    type Error = &'static str;

    fn try_from(nodes: Vec<NodeId>) -> Result<Self, Self::Error> {
        if nodes.len() > limits::VOTERS_MAX {
            return Err("more voters than a shard has");
        }
        let ordered = nodes.windows(2).all(|pair| pair[0] < pair[1]);
        if ordered { Ok(Self(nodes)) } else { Err("voters out of order") }
    }
}

impl From<Voters> for Vec<NodeId> {
    fn from(voters: Voters) -> Self {
        voters.0
    }
}

/// What a node knows of who leads a shard. It says whom to ask next, and no more: only a leader's answer shows that it
/// leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHint {
    /// PeerId of the leader; none if the node knows of none.
    pub leader: Option<NodeId>,
    /// The newest term that the node has heard of. Of two hints, the one of the greater term is newer.
    pub term: u64,
    /// The voters, as of that term.
    pub voters: Voters,
}

impl LeaderHint {
    /// The hint for another node: a node that does not lead does not name itself.
    pub fn elsewhere(mut self, from: NodeId) -> Self {
        self.leader = self.leader.filter(|leader| *leader != from);
        self
    }

    /// The hint without the voters, for one of many answers that go the same way.
    pub fn without_voters(self) -> Self {
        Self { voters: Voters::default(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoded as _;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    #[test]
    fn voters_are_kept_once_each_in_order_and_no_more_than_a_shard_has() {
        let voters = Voters::of([3, 1, 3, 2].map(node));
        assert_eq!(voters.iter().copied().collect::<Vec<_>>(), [1, 2, 3].map(node));
        assert_eq!(Voters::of((0..200).map(node)).iter().count(), limits::VOTERS_MAX);
    }

    #[test]
    fn a_hint_with_more_voters_than_a_shard_has_or_out_of_order_is_refused() {
        let hint = |voters: Voters| LeaderHint { leader: Some(node(1)), term: 4, voters };
        let read = |voters: Voters| LeaderHint::decode(&hint(voters).encode().unwrap());
        assert!(read(Voters((0..8).map(node).collect())).is_err());
        assert!(read(Voters([2, 1].map(node).to_vec())).is_err());
        let seven = Voters::of((0..7).map(node));
        assert_eq!(read(seven.clone()).unwrap(), hint(seven));
    }
}
