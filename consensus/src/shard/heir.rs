//! Chooses the voter that finishes a change of voters whose leader is to leave: a leader does not take itself out.

use skep_protocol::ids::{NodeId, RaftId};

use super::MembershipError;

/// A voter that stays, as the leader that is to leave knows it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: RaftId,
    pub(super) node: NodeId,
    /// The index of the last entry that the voter is known to hold.
    pub(super) holds: Option<u64>,
    /// Whether the voter could lead, however much of the log it holds; else the reason.
    pub(super) can_lead: Result<(), MembershipError>,
}

impl Candidate {
    /// How much of the log the voter holds, if it can take the lead. A voter whose log is unknown may have to catch up
    /// first, and until then no node would lead.
    fn standing(&self) -> Result<u64, MembershipError> {
        self.can_lead.clone()?;
        self.holds.ok_or(MembershipError::LogNotKnown { node: self.node })
    }
}

/// The voter that gets the lead: the one that holds most of the log can take it soonest.
///
/// # Errors
/// [`MembershipError::NoHeir`] says of each voter why it is not chosen.
pub(super) fn heir(candidates: &[Candidate]) -> Result<RaftId, MembershipError> {
    let able = candidates.iter().filter_map(|candidate| Some((candidate.standing().ok()?, candidate.id)));
    able.max().map(|(_, id)| id).ok_or_else(|| {
        let why = candidates.iter().filter_map(|candidate| candidate.standing().err());
        MembershipError::NoHeir { why: why.map(|error| error.to_string()).collect::<Vec<_>>().join("; ") }
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, node};
    use super::*;

    fn candidate(n: u8, holds: Option<u64>, can_lead: Result<(), MembershipError>) -> Candidate {
        Candidate { id: id(n), node: node(n), holds, can_lead }
    }

    fn forgot(n: u8) -> Result<(), MembershipError> {
        Err(MembershipError::Forgot { node: node(n) })
    }

    #[test]
    fn the_lead_goes_to_who_holds_most_of_those_that_can_take_it() {
        let candidates = [
            candidate(2, Some(7), Ok(())),
            candidate(3, Some(9), forgot(3)),
            candidate(4, Some(8), Ok(())),
            candidate(5, None, Ok(())),
            candidate(6, Some(9), Err(MembershipError::OtherIncarnation { node: node(6) })),
        ];
        assert_eq!(heir(&candidates), Ok(id(4)));
    }

    #[test]
    fn a_lead_that_nobody_can_take_is_kept_and_it_is_said_of_each_why() {
        let unreached = Err(MembershipError::Unreachable { node: node(4) });
        let candidates = [candidate(2, Some(9), forgot(2)), candidate(3, None, Ok(())), candidate(4, None, unreached)];
        let why = heir(&candidates).unwrap_err().to_string();
        for n in 2..=4 {
            assert!(why.contains(&node(n).to_string()), "{why}");
        }
        for said in ["lacks entries that it acknowledged", "how much of the log", "is not connected"] {
            assert!(why.contains(said), "{why}");
        }
    }
}
