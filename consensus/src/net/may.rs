//! What a member of a site may do, by its certificate.
//!
//! This is the one place that says so. Where there is no site, every peer that is listed may do what members may.

use skep_protocol::text::AgentId;
use skep_trust::{Member, Role, Standing};

/// What a node does that not every member may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Take part in the group of a shard, once its log says so.
    Vote,
    /// Be believed to vote, though this node's replica does not say so.
    BeBelieved,
    /// Begin to serve an agent.
    Attach,
    /// Speak for an agent that it serves: hold and renew, claim and report, finish and stop.
    Serve,
    /// Make an agent known, change what it can do, have it forgotten.
    Administer,
    /// Have a shard change something that is about no agent.
    Change,
}

/// Whether a member may do something, for an agent if it is about one.
///
/// A member of whom nobody knows whether its certificate is over finishes and stops, catches up and relays. It begins
/// to serve no agent, and its word alone makes nobody a voter. It votes where the log of the group has it as a voter:
/// after a whole site was without power nobody is told the time before there is a leader.
pub(crate) fn may(member: &Member, standing: Standing, action: Action, agent: Option<&AgentId>) -> bool {
    let is_one_of = |roles: &[Role]| roles.iter().any(|role| member.is(*role));
    let serves = || agent.is_some_and(|agent| member.serves(agent));
    let observes_only = member.grants.roles.iter().all(|role| *role == Role::Observer);
    let is_fresh = standing == Standing::Fresh;
    match action {
        Action::Vote => is_one_of(&[Role::Voter, Role::Witness]),
        Action::BeBelieved => is_fresh && is_one_of(&[Role::Voter, Role::Witness]),
        Action::Attach => is_fresh && !observes_only && serves(),
        Action::Serve => !observes_only && serves(),
        Action::Administer => is_one_of(&[Role::Operator, Role::Voter]) || (!observes_only && serves()),
        Action::Change => !observes_only,
    }
}

#[cfg(test)]
mod tests {
    use super::super::hall::{ROOT, certificate, chain, gate, hello, member, node};
    use super::*;

    async fn of(roles: &[Role], agents: &[&str]) -> Member {
        let mut certificate = certificate(node(9), roles);
        certificate.grants.agents = agents.iter().map(|agent| agent.parse().unwrap()).collect();
        let gate = gate(&member(node(1), &[Role::Voter]));
        let admitted = gate.admit(&hello(chain(&certificate, ROOT)), node(9)).await;
        Member::clone(&admitted.unwrap().member)
    }

    const ALL: [Action; 6] =
        [Action::Vote, Action::BeBelieved, Action::Attach, Action::Serve, Action::Administer, Action::Change];

    /// What a member may do for an agent.
    fn allowed(member: &Member, standing: Standing, agent: &str) -> Vec<Action> {
        let agent = AgentId::new(agent).unwrap();
        ALL.into_iter().filter(|action| may(member, standing, *action, Some(&agent))).collect()
    }

    #[tokio::test]
    async fn a_member_speaks_for_the_agents_that_its_certificate_names_and_is_what_its_roles_say() {
        use Action::{Administer, Attach, BeBelieved, Change, Serve, Vote};
        let robot = of(&[Role::Robot], &["amr-*"]).await;
        assert_eq!(allowed(&robot, Standing::Fresh, "amr-7"), [Attach, Serve, Administer, Change]);
        assert_eq!(allowed(&robot, Standing::Fresh, "agv-7"), [Change]);
        let voter = of(&[Role::Voter, Role::Robot], &["amr-*"]).await;
        assert_eq!(allowed(&voter, Standing::Fresh, "agv-7"), [Vote, BeBelieved, Administer, Change]);
        let witness = of(&[Role::Witness], &[]).await;
        assert_eq!(allowed(&witness, Standing::Fresh, "amr-7"), [Vote, BeBelieved, Change]);
        let observer = of(&[Role::Observer], &["*"]).await;
        assert!(allowed(&observer, Standing::Fresh, "amr-7").is_empty());
    }

    #[tokio::test]
    async fn a_member_of_whom_nobody_knows_whether_it_is_one_finishes_and_begins_nothing() {
        use Action::{Administer, Change, Serve, Vote};
        let both = of(&[Role::Voter, Role::Robot], &["amr-*"]).await;
        assert_eq!(allowed(&both, Standing::Stale, "amr-7"), [Vote, Serve, Administer, Change]);
    }
}
