use skep_protocol::agent::AgentOp;
use skep_protocol::entry::EntryBody;
use skep_protocol::lease::LeaseTerms;

use super::support::Served;
use super::*;

const AGENTS: u16 = 40;

/// Carries out proposals; returns the nodes to which updates are under way.
fn carry_out(orchestrator: &mut Orchestrator, served: &mut Served) -> Vec<NodeId> {
    let mut told = Vec::new();
    while let Some(effect) = orchestrator.poll_effect() {
        match effect {
            Effect::Propose(decisions) => {
                served.apply(EntryBody::Decisions(decisions));
                orchestrator.handle(Event::ProposalEnded { applied: true }, &served.state, served.now);
            }
            Effect::Update { node, .. } => told.push(node),
            Effect::BeginRound | Effect::Answer { .. } => {}
        }
    }
    told
}

#[test]
fn nothing_is_kept_of_agents_that_came_and_went() {
    // Whether the updates that are under way when the agents leave arrive, and whether the agents are forgotten as soon
    // as they have left.
    for (arrives, removed) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut served = Served::new(AGENTS);
        (0..AGENTS).for_each(|n| served.create(n, &[]));
        let mut orchestrator = Orchestrator::new(OrchestratorConfig::default(), &served.state, served.now);
        let first = carry_out(&mut orchestrator, &mut served);
        assert_eq!(first.len(), usize::from(AGENTS));
        let end = |orchestrator: &mut Orchestrator, served: &Served, node: NodeId| {
            let event = Event::UpdateEnded { node, arrived: arrives };
            orchestrator.handle(event, &served.state, served.now);
        };
        // The first updates end, and there is more to tell: each agent's node learns what the agent is given.
        first.into_iter().for_each(|node| end(&mut orchestrator, &served, node));
        (0..usize::from(AGENTS)).for_each(|at| served.says(&mut orchestrator, at, 1, 0));
        let told = carry_out(&mut orchestrator, &mut served);
        assert_eq!((told.len(), served.state.counts().pending), (usize::from(AGENTS), 0));
        assert!(orchestrator.updates.kept() > 0 && orchestrator.work.kept() > 0 && orchestrator.leases.kept() > 0);

        for at in 0..usize::from(AGENTS) {
            served.detach(at);
            if removed {
                served.ask(AgentOp::Remove { agent: served.attachments[at].0.clone() });
            }
        }
        assert_eq!(served.state.counts().agents, if removed { 0 } else { u64::from(AGENTS) });
        orchestrator.handle(Event::Applied, &served.state, served.now);
        told.into_iter().for_each(|node| end(&mut orchestrator, &served, node));
        served.now = served.now.plus_ms(LeaseTerms::DEFAULT.orchestrator_ms());
        orchestrator.handle_timeout(&served.state, served.now);
        let Orchestrator { updates, work, leases, .. } = &orchestrator;
        let kept = (updates.kept(), work.kept(), leases.kept());
        assert_eq!(kept, (0, 0, 0), "arrives: {arrives}, removed: {removed}");
    }
}
