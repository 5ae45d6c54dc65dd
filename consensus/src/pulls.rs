//! Waits for commands of agents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_fleet::FleetState;
use skep_protocol::limits;
use skep_protocol::pull::{Pull, PullFor};
use skep_protocol::text::AgentId;
use tokio::sync::Notify;

/// The pulls that wait for the commands of each agent. A commit wakes only the pulls that it concerns: hundreds of
/// nodes may wait, and thousands of commits a second may come. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pulls(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// The number of the last pull, which names it.
    last: u64,
    pulls: BTreeMap<u64, Arc<Notify>>,
    /// The pulls that ask for each agent.
    by_agent: BTreeMap<AgentId, BTreeSet<u64>>,
    /// Number of agents in all pulls, counted once for each pull; a pull without agents counts as one.
    agents: usize,
}

/// A place among the pulls that wait. Dropping it ends the wait.
pub(crate) struct PullWaiter<'a> {
    pulls: Pulls,
    key: u64,
    asked: &'a [PullFor],
    notify: Arc<Notify>,
}

fn weight(asked: &[PullFor]) -> usize {
    asked.len().max(1)
}

impl Pulls {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a pull that waits; none if too many would wait.
    pub(crate) fn wait_for<'a>(&self, pull: &'a Pull) -> Option<PullWaiter<'a>> {
        let asked = pull.agents.as_slice();
        let mut waiting = self.lock();
        let too_many = waiting.agents + weight(asked) > limits::PULLED_AGENTS_MAX;
        if too_many || asked.len() > limits::AGENTS_PER_NODE_MAX {
            return None;
        }
        waiting.last += 1;
        waiting.agents += weight(asked);
        let (key, notify) = (waiting.last, Arc::<Notify>::default());
        waiting.pulls.insert(key, Arc::clone(&notify));
        for asked in asked {
            waiting.by_agent.entry(asked.agent.clone()).or_default().insert(key);
        }
        Some(PullWaiter { pulls: self.clone(), key, asked, notify })
    }

    /// Wakes the pulls that ask for an agent for which an entry after this one changed something. To be called once
    /// they can read the state.
    pub(crate) fn tell(&self, state: &FleetState, after: Option<u64>) {
        // What operators may do concerns every agent.
        if state.authority_changed_after(after) {
            return self.tell_all();
        }
        let waiting = self.lock();
        if waiting.pulls.is_empty() {
            return;
        }
        let concerned = state.inboxes_changed_after(after).filter_map(|agent| waiting.by_agent.get(agent));
        let concerned: BTreeSet<u64> = concerned.flatten().copied().collect();
        for notify in concerned.iter().filter_map(|key| waiting.pulls.get(key)) {
            notify.notify_waiters();
        }
    }

    /// Wakes all pulls: the state was replaced.
    pub(crate) fn tell_all(&self) {
        self.lock().pulls.values().for_each(|notify| notify.notify_waiters());
    }
}

impl PullWaiter<'_> {
    /// Completes when there may next be something. A caller that begins this before it looks at the state misses
    /// nothing.
    pub(crate) fn next(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for PullWaiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.pulls.lock();
        waiting.pulls.remove(&self.key);
        waiting.agents = waiting.agents.saturating_sub(weight(self.asked));
        for asked in self.asked {
            let Some(keys) = waiting.by_agent.get_mut(&asked.agent) else { continue };
            keys.remove(&self.key);
            if keys.is_empty() {
                waiting.by_agent.remove(&asked.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use skep_fleet::{FleetLimits, LogPosition};
    use skep_protocol::agent::{AgentOp, Role};
    use skep_protocol::command::{CommandOp, PerClass};
    use skep_protocol::entry::{Entry, EntryBody, Op, Request};
    use skep_protocol::ids::{AttachmentId, HomeEpoch, JournalId, NodeId, RequestId, SessionId};
    use skep_protocol::lease::LeaseTerms;
    use skep_protocol::outcome::{Receipt, Reply};
    use skep_protocol::time::LogInstant;

    use super::*;

    const NOW: LogInstant = LogInstant::from_raw(1_000);

    fn agent(name: &str) -> AgentId {
        name.parse().unwrap()
    }

    fn pull(agents: &[&str]) -> Pull {
        let asked = |name: &&str| PullFor {
            agent: agent(name),
            attachment: AttachmentId(1),
            journal: JournalId::from_bytes([1; 16]),
            home: HomeEpoch(1),
            after: PerClass::default(),
            seen: 0,
            room: PerClass::default(),
        };
        Pull { agents: agents.iter().map(asked).collect(), wait_ms: 1_000, replaced: 0, authority: 0 }
    }

    /// A shard, and the pulls that wait at it.
    struct Shard {
        state: FleetState,
        index: u64,
        pulls: Pulls,
    }

    impl Shard {
        fn new() -> Self {
            Self { state: FleetState::new(FleetLimits::default()), index: 0, pulls: Pulls::default() }
        }

        /// Commits an operation, and wakes the pulls that it concerns.
        fn commit(&mut self, op: impl Into<Op>) -> Receipt {
            let before = self.state.applied().map(|position| position.index);
            self.index += 1;
            let id = RequestId::from_bytes(u128::from(self.index).to_be_bytes());
            let request = Request { id, first_sent: NOW, deadline: NOW.plus_ms(60_000), op: op.into() };
            let entry = Entry { stamp: NOW, term: 1, body: EntryBody::Requests(vec![request]) };
            let applied = self.state.apply(LogPosition { index: self.index, term: 1 }, &entry);
            self.pulls.tell(&self.state, before);
            match applied.replies.as_slice() {
                [Reply::Done(receipt)] => receipt.clone(),
                other => panic!("{other:?}"),
            }
        }

        fn attach(&mut self, name: &str) -> AttachmentId {
            let (node, session) = (NodeId::from_public_key([1; 32]), SessionId::from_bytes([1; 16]));
            let (agent, role, lease) = (agent(name), Role::unregistered(), LeaseTerms { ttl_ms: 5_000 });
            match self.commit(AgentOp::Attach { agent, role, node, session, lease }) {
                Receipt::Attached { attachment, .. } => attachment,
                other => panic!("{other:?}"),
            }
        }

        fn open(&mut self, name: &str, attachment: AttachmentId) {
            let journal = JournalId::from_bytes([1; 16]);
            self.commit(CommandOp::OpenInbox { agent: agent(name), attachment, journal, groups: BTreeSet::new() });
        }
    }

    /// Which of the waiting pulls a change wakes.
    fn woken(shard: &mut Shard, waiters: &[PullWaiter<'_>; 2], change: impl FnOnce(&mut Shard)) -> [bool; 2] {
        let next = waiters.each_ref().map(PullWaiter::next);
        change(shard);
        next.map(|next| next.now_or_never().is_some())
    }

    #[test]
    fn a_commit_wakes_the_pull_whose_agent_it_concerns_and_no_other() {
        let mut shard = Shard::new();
        let attachments = ["a", "b"].map(|name| shard.attach(name));
        let (both, of_b) = (pull(&["a", "c"]), pull(&["b"]));
        let waiters = [&both, &of_b].map(|pull| shard.pulls.wait_for(pull).unwrap());
        let opened = woken(&mut shard, &waiters, |shard| shard.open("a", attachments[0]));
        assert_eq!(opened, [true, false], "its commands can come");
        let opened = woken(&mut shard, &waiters, |shard| shard.open("b", attachments[1]));
        assert_eq!(opened, [false, true]);
        let detached = woken(&mut shard, &waiters, |shard| {
            shard.commit(AgentOp::Detach { agent: agent("b"), attachment: attachments[1] });
        });
        assert_eq!(detached, [false, true], "its commands have stopped coming");
        let elsewhere = woken(&mut shard, &waiters, |shard| {
            let attachment = shard.attach("d");
            shard.open("d", attachment);
        });
        assert_eq!(elsewhere, [false, false], "no pull waits for its commands");
        let all = woken(&mut shard, &waiters, |shard| shard.pulls.tell_all());
        assert_eq!(all, [true, true], "the state is another");
    }

    #[test]
    fn one_more_than_may_wait_is_not_woken_and_those_that_left_make_room() {
        let pulls = Pulls::default();
        let names: Vec<String> = (0..limits::AGENTS_PER_NODE_MAX).map(|n| format!("r{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (full, one) = (pull(&names), pull(&["r1"]));
        let mut waiters: Vec<PullWaiter<'_>> = std::iter::from_fn(|| pulls.wait_for(&full)).collect();
        assert_eq!(waiters.len(), limits::PULLED_AGENTS_MAX / limits::AGENTS_PER_NODE_MAX);
        waiters.extend(std::iter::from_fn(|| pulls.wait_for(&one)));
        assert!(pulls.wait_for(&one).is_none());
        waiters.pop();
        assert!(pulls.wait_for(&one).is_some());
        drop(waiters);
        let left = pulls.lock();
        assert_eq!((left.pulls.len(), left.by_agent.len(), left.agents), (0, 0, 0));
        drop(left);
        let more = [names.as_slice(), &["one-more"]].concat();
        assert!(pulls.wait_for(&pull(&more)).is_none(), "no node serves so many");
    }
}
