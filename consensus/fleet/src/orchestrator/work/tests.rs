use skep_protocol::entry::EntryBody;
use skep_protocol::task::TaskOp;
use skep_protocol::text::Reason;

use super::*;
use crate::orchestrator::support::{Served, task};
use crate::orchestrator::{Effect, Event, Orchestrator, OrchestratorConfig};

const AGENTS: u16 = 300;

fn orchestrator(shard: &Served) -> Orchestrator {
    let mut orchestrator = Orchestrator::new(OrchestratorConfig::default(), &shard.state, shard.now);
    while orchestrator.poll_effect().is_some() {}
    orchestrator
}

#[test]
fn robots_that_move_have_nobody_looked_at_while_there_is_nothing_for_them() {
    let mut shard = Served::new(AGENTS);
    shard.create(0, &["fly"]);
    let mut orchestrator = orchestrator(&shard);
    let all_say = |shard: &Served, orchestrator: &mut Orchestrator, credits: u64, x_mm: i64| {
        (0..usize::from(AGENTS)).for_each(|at| shard.says(orchestrator, at, credits, x_mm));
        looks::take()
    };
    all_say(&shard, &mut orchestrator, 1, 0);
    for step in 1..5 {
        assert_eq!(all_say(&shard, &mut orchestrator, 1, step), 0, "nobody can fly, wherever they are");
    }
    shard.ask(TaskOp::Cancel { task: task(0), reason: Reason::new("").unwrap() });
    orchestrator.handle(Event::Applied, &shard.state, shard.now);
    looks::take();
    assert_eq!(all_say(&shard, &mut orchestrator, 2, 9), 0, "nothing is pending, however much they want");
    // A task that arrives for these agents is assigned.
    shard.create(1, &[]);
    orchestrator.handle(Event::Applied, &shard.state, shard.now);
    let given = std::iter::from_fn(|| orchestrator.poll_effect()).find(|effect| matches!(effect, Effect::Propose(_)));
    assert!(given.is_some());
}

#[test]
fn of_agents_that_can_do_the_same_one_is_looked_at_for_each_task() {
    let mut shard = Served::new(AGENTS);
    (0..1_000).for_each(|n| shard.create(n, &[]));
    let mut orchestrator = orchestrator(&shard);
    looks::take();
    let mut given = 0;
    for at in 0..usize::from(AGENTS) {
        shard.says(&mut orchestrator, at, 4, 0);
    }
    looks::take();
    while let Some(effect) = orchestrator.poll_effect() {
        let Effect::Propose(decisions) = effect else { continue };
        given += decisions.len();
        shard.apply(EntryBody::Decisions(decisions));
        orchestrator.handle(Event::ProposalEnded { applied: true }, &shard.state, shard.now);
        // One look at each hungry agent, at each agent that the updates are for, and one for each task.
        let looked = looks::take();
        assert!(looked <= 2 * usize::from(AGENTS) + DECISIONS_PER_PROPOSAL_MAX, "{looked} looks");
    }
    assert_eq!(given, 1_000);
    assert_eq!(shard.state.counts().pending, 0);
}
