//! What the state alone makes due: claims without progress, and tasks that have expired.

use skep_protocol::entry::Decision;
use skep_protocol::ids::TaskId;
use skep_protocol::time::LogInstant;

use super::DECISIONS_PER_PROPOSAL_MAX;
use super::proposed::Proposed;
use crate::state::{Due, FleetState};

/// Ends what is due. Keeps only its latest proposals, so that it does not propose one again before the shard applies
/// it.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings {
    proposed: Proposed<Due, TaskId>,
}

impl Endings {
    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        self.proposed.forget(|due| state.is_due(due), now);
        let due: Vec<_> = self.proposed.fresh(state.dues(), now).take(DECISIONS_PER_PROPOSAL_MAX).collect();
        let decision = |(_, due, task): &(LogInstant, Due, TaskId)| match due {
            Due::StaleClaim => state.task(task).map(|t| Decision::ExpireClaim { task: *task, epoch: t.epoch }),
            Due::TaskExpiry => Some(Decision::ExpireTask { task: *task }),
        };
        let decisions = due.iter().filter_map(decision).collect();
        self.proposed.extend(due, now);
        decisions
    }

    /// When this next has something to decide, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        self.proposed.poll_timeout(state.dues())
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::entry::{Entry, EntryBody, Op, Request};
    use skep_protocol::ids::RequestId;
    use skep_protocol::task::{DisconnectPolicy, RetryPolicy, TaskOp, TaskSpec};
    use skep_protocol::text::{TaskKind, Title};

    use super::*;
    use crate::state::{LogPosition, looks};
    use crate::{FleetLimits, Orchestrator, OrchestratorConfig, OrchestratorEffect, OrchestratorEvent};

    const QUEUED: u128 = 50_000;
    const PER_ENTRY: usize = 500;
    const STEPS: usize = 10;

    struct Shard {
        state: FleetState,
        now: LogInstant,
        index: u64,
    }

    impl Shard {
        /// A shard with many tasks that expire one day, and no agent that can do them.
        fn queued() -> Self {
            let now = LogInstant::from_raw(1_000);
            let mut shard = Self { state: FleetState::new(FleetLimits::default()), now, index: 0 };
            let spec = TaskSpec {
                title: Title::new("a task").unwrap(),
                kind: TaskKind::new("task").unwrap(),
                priority: Default::default(),
                required: Default::default(),
                payload: Vec::new(),
                retry: RetryPolicy { attempts_max: 3, backoff_initial_ms: 100, backoff_max_ms: 1_000 },
                stale_after_ms: 10_000,
                valid_for_ms: Some(600_000),
                disconnect: DisconnectPolicy::default(),
                place: None,
            };
            let create = |n: u128| Request {
                id: RequestId::from_bytes(n.to_be_bytes()),
                first_sent: now,
                deadline: now.plus_ms(60_000),
                op: Op::Task(TaskOp::Create {
                    task: TaskId::from_bytes(n.to_be_bytes()),
                    spec: Box::new(spec.clone()),
                }),
            };
            let requests: Vec<Request> = (1..=QUEUED).map(create).collect();
            for some in requests.chunks(PER_ENTRY) {
                shard.apply(EntryBody::Requests(some.to_vec()));
            }
            assert_eq!(u128::from(shard.state.counts().pending), QUEUED);
            shard
        }

        fn apply(&mut self, body: EntryBody) {
            self.index += 1;
            let position = LogPosition { index: self.index, term: 1 };
            self.state.apply(position, &Entry { stamp: self.now, term: 1, body });
        }
    }

    #[test]
    fn no_step_looks_at_more_than_it_can_propose_however_much_is_queued() {
        let mut shard = Shard::queued();
        let mut orchestrator = Orchestrator::new(OrchestratorConfig::default(), &shard.state, shard.now);
        looks::take();
        for _ in 0..STEPS {
            orchestrator.handle(OrchestratorEvent::Applied, &shard.state, shard.now);
            assert_eq!(orchestrator.poll_timeout(&shard.state, shard.now), Some(shard.now.plus_ms(600_000)));
        }
        let looked = looks::take();
        assert!(looked <= 2 * STEPS, "{looked} looks in {STEPS} steps, and nothing is due");

        // All of it is due, and the outcome of the first proposal is unknown.
        shard.apply(EntryBody::ClockLost);
        shard.now = shard.state.clock();
        orchestrator.handle(OrchestratorEvent::Applied, &shard.state, shard.now);
        let lost = orchestrator.poll_effect();
        assert!(matches!(lost, Some(OrchestratorEffect::Propose(_))), "{lost:?}");
        assert_eq!(looks::take(), DECISIONS_PER_PROPOSAL_MAX);
        orchestrator.handle(OrchestratorEvent::ProposalEnded { applied: false }, &shard.state, shard.now);
        let mut ended = 0;
        while let Some(OrchestratorEffect::Propose(decisions)) = orchestrator.poll_effect() {
            let looked = looks::take();
            assert!(looked <= 2 * DECISIONS_PER_PROPOSAL_MAX, "{looked} looks for {} decisions", decisions.len());
            ended += decisions.len() as u128;
            shard.apply(EntryBody::Decisions(decisions));
            orchestrator.handle(OrchestratorEvent::ProposalEnded { applied: true }, &shard.state, shard.now);
        }
        assert_eq!(ended, QUEUED - DECISIONS_PER_PROPOSAL_MAX as u128);
        let again = orchestrator.poll_timeout(&shard.state, shard.now).expect("what was lost is proposed again");
        shard.now = again;
        orchestrator.handle_timeout(&shard.state, shard.now);
        let effect = orchestrator.poll_effect();
        let Some(OrchestratorEffect::Propose(decisions)) = effect else { panic!("{effect:?}") };
        assert_eq!(decisions.len(), DECISIONS_PER_PROPOSAL_MAX);
    }
}
