//! Agents that came and went.

use skep_protocol::entry::Decision;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::DECISIONS_PER_PROPOSAL_MAX;
use super::proposed::Proposed;
use crate::state::FleetState;

/// Proposes to forget each agent that no node has served for its time to live. Keeps only its latest proposals.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleAgents {
    proposed: Proposed<LogInstant, AgentId>,
}

impl IdleAgents {
    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        self.proposed.forget(|(_, since, agent)| state.is_idle_since(agent, *since), now);
        let due: Vec<_> = self.proposed.fresh(state.idle_agents(), now).take(DECISIONS_PER_PROPOSAL_MAX).collect();
        let decisions = due
            .iter()
            .map(|(_, since, agent)| Decision::ForgetAgent { agent: agent.clone(), idle_since: *since })
            .collect();
        self.proposed.extend(due, now);
        decisions
    }

    /// When this next has something to decide, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        self.proposed.poll_timeout(state.idle_agents())
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::agent::{AgentOp, Role};
    use skep_protocol::entry::{Entry, EntryBody, Op, Request};
    use skep_protocol::ids::{NodeId, RequestId, SessionId};
    use skep_protocol::lease::LeaseTerms;

    use super::*;
    use crate::FleetLimits;
    use crate::state::{LogPosition, looks};

    const GONE: u128 = 5_000;
    const STEPS: usize = 10;

    #[test]
    fn no_step_looks_at_more_agents_than_it_can_have_forgotten() {
        let mut state = FleetState::new(FleetLimits::default());
        let now = LogInstant::from_raw(1_000);
        let mut index = 0;
        let mut apply = |state: &mut FleetState, now, body| {
            index += 1;
            let entry = Entry { stamp: now, term: 1, body };
            state.apply(LogPosition { index, term: 1 }, &entry);
        };
        for n in 1..=GONE {
            let (agent, role) = (AgentId::new(format!("agent-{n}")).unwrap(), Role::unregistered());
            let (node, session) = (NodeId::from_public_key([1; 32]), SessionId::from_bytes([1; 16]));
            let op = Op::Agent(AgentOp::Attach { agent, role, node, session, lease: LeaseTerms::DEFAULT });
            let (id, deadline) = (RequestId::from_bytes(n.to_be_bytes()), now.plus_ms(60_000));
            apply(&mut state, now, EntryBody::Requests(vec![Request { id, first_sent: now, deadline, op }]));
        }
        let attached = state.attached().filter_map(|(agent, record)| Some((agent.clone(), record.attachment?.id)));
        let left = attached.map(|(agent, attachment)| Decision::ExpireLease { agent, attachment }).collect();
        apply(&mut state, now, EntryBody::Decisions(left));

        let mut idle = IdleAgents::default();
        let due = now.plus_ms(FleetLimits::default().agent_ttl_ms);
        looks::take();
        for _ in 0..STEPS {
            assert!(idle.poll(&state, now).is_empty());
            assert_eq!(idle.poll_timeout(&state), Some(due));
        }
        assert!(looks::take() <= 2 * STEPS);
        let mut forgotten = 0;
        while forgotten < GONE {
            let decisions = idle.poll(&state, due);
            let looked = looks::take();
            assert!(looked <= DECISIONS_PER_PROPOSAL_MAX, "{looked} looks for {} decisions", decisions.len());
            assert!(!decisions.is_empty(), "{forgotten} are forgotten");
            assert_eq!(idle.poll_timeout(&state).map(|at| at >= due), Some(true));
            forgotten += decisions.len() as u128;
            apply(&mut state, due, EntryBody::Decisions(decisions));
            looks::take();
        }
        assert_eq!((state.counts().agents, idle.poll(&state, due)), (0, Vec::new()));
    }
}
