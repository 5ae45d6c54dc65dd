//! The tasks that can be claimed, in their order.
//!
//! The standing of a pending task follows from the task and the clock of the state, and is kept up to date as the clock
//! advances. So a search for work sees only tasks that the agent may have. Tasks that wait for their time, are kept for
//! an agent or have expired hide no ready task, however many they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;
use skep_protocol::ids::TaskId;
use skep_protocol::task::{Priority, Task, TaskState};
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use super::Tasks;

/// The rank of a pending task: the most urgent first, then the oldest.
type Rank = (Reverse<Priority>, u64, TaskId);
/// Pending tasks in the order of their ranks.
pub(super) type Ranks = OrdSet<Rank>;

/// Pending tasks that require the same capabilities.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// How many tasks, those included that no agent may have yet.
    count: u64,
    /// The tasks that any able agent may have.
    open: Ranks,
}

/// Which agents may have a task, of those that can do it.
enum Standing<'a> {
    Everybody,
    Only(&'a AgentId),
    Nobody,
}

fn rank(task: &Task) -> Rank {
    (Reverse(task.spec.priority), task.seq, task.id)
}

fn standing(task: &Task, at: LogInstant) -> Standing<'_> {
    let TaskState::Pending { not_before, kept_for } = &task.state else { return Standing::Nobody };
    if *not_before > at || task.expires_at.is_some_and(|expires_at| expires_at <= at) {
        return Standing::Nobody;
    }
    match kept_for {
        Some(kept) if kept.exclusive && kept.until > at => Standing::Only(&kept.agent),
        Some(_) | None => Standing::Everybody,
    }
}

/// The instants at which the standing of a pending task changes.
fn gates(task: &Task) -> [Option<LogInstant>; 3] {
    let TaskState::Pending { not_before, kept_for } = &task.state else { return [None; 3] };
    let kept = kept_for.as_ref().filter(|kept| kept.exclusive).map(|kept| kept.until);
    [Some(*not_before), kept, task.expires_at]
}

impl Tasks {
    /// Pending tasks that at least one of these agents can do and may have at an instant, most urgent first. The
    /// instant is not before the last entry. At most this many tasks are looked at.
    pub(crate) fn claimable<'b>(
        &self,
        now: LogInstant,
        agents: impl IntoIterator<Item = (&'b AgentId, &'b BTreeSet<Capability>)>,
        looks: u64,
    ) -> Claimable<'_> {
        Claimable::new(self, now, agents, looks)
    }

    pub(super) fn add_pending(&mut self, task: &Task, now: LogInstant) {
        self.pending.entry(task.spec.required.clone()).or_default().count += 1;
        self.pending_count += 1;
        for at in gates(task).into_iter().flatten().filter(|at| *at > now) {
            self.gates.insert((at, task.id));
        }
        self.stand(task, now);
    }

    pub(super) fn remove_pending(&mut self, task: &Task) {
        for at in gates(task).into_iter().flatten() {
            self.gates.remove(&(at, task.id));
        }
        self.stand_aside(task);
        let Some(waiting) = self.pending.get_mut(&task.spec.required) else { return };
        waiting.count = waiting.count.saturating_sub(1);
        if waiting.count == 0 {
            self.pending.remove(&task.spec.required);
        }
        self.pending_count = self.pending_count.saturating_sub(1);
    }

    /// Takes note that the clock has advanced: updates the standing of tasks whose instant has passed. Each task is
    /// looked at once for each of its instants.
    pub(crate) fn open_gates(&mut self, now: LogInstant) {
        while let Some((at, id)) = self.gates.get_min().copied().filter(|(at, _)| *at <= now) {
            self.gates.remove(&(at, id));
            if let Some(task) = self.records.get(&id).cloned() {
                self.stand_aside(&task);
                self.stand(&task, now);
            }
        }
    }

    fn stand(&mut self, task: &Task, now: LogInstant) {
        let required = &task.spec.required;
        match standing(task, now) {
            Standing::Everybody => {
                self.pending.entry(required.clone()).or_default().open.insert(rank(task));
            }
            Standing::Only(agent) => {
                self.kept.entry((agent.clone(), required.clone())).or_default().insert(rank(task));
            }
            Standing::Nobody => {}
        }
    }

    fn stand_aside(&mut self, task: &Task) {
        if let Some(waiting) = self.pending.get_mut(&task.spec.required) {
            waiting.open.remove(&rank(task));
        }
        let TaskState::Pending { kept_for: Some(kept), .. } = &task.state else { return };
        let whose = (kept.agent.clone(), task.spec.required.clone());
        let Some(ranks) = self.kept.get_mut(&whose) else { return };
        ranks.remove(&rank(task));
        if ranks.is_empty() {
            self.kept.remove(&whose);
        }
    }
}

/// Tasks with the same requirements, of which some were not looked at yet.
struct Kind<'a> {
    required: &'a BTreeSet<Capability>,
    /// The agent that the tasks are kept for; none if any agent may have them.
    only: Option<&'a AgentId>,
    next: Rank,
    rest: Box<dyn Iterator<Item = Rank> + 'a>,
}

impl<'a> Kind<'a> {
    fn new(
        required: &'a BTreeSet<Capability>,
        only: Option<&'a AgentId>,
        mut ranks: impl Iterator<Item = Rank> + 'a,
    ) -> Option<Self> {
        Some(Self { required, only, next: ranks.next()?, rest: Box::new(ranks) })
    }
}

/// Tasks that can be claimed, most urgent first, over all requirements that an agent meets. Looks at a bounded number
/// of tasks, each of which some agent may have.
pub(crate) struct Claimable<'a> {
    tasks: &'a Tasks,
    now: LogInstant,
    kinds: Vec<Kind<'a>>,
    looks: u64,
}

impl<'a> Claimable<'a> {
    /// Tasks for these agents, with the capabilities of each.
    fn new<'b>(
        tasks: &'a Tasks,
        now: LogInstant,
        agents: impl IntoIterator<Item = (&'b AgentId, &'b BTreeSet<Capability>)>,
        looks: u64,
    ) -> Self {
        let agents: BTreeMap<&AgentId, &BTreeSet<Capability>> = agents.into_iter().collect();
        let offered: BTreeSet<&BTreeSet<Capability>> = agents.values().copied().collect();
        let somebody_can = |required: &BTreeSet<Capability>| offered.iter().any(|some| required.is_subset(some));
        let able = tasks.pending.iter().filter(|(required, _)| somebody_can(required));
        let mut kinds: Vec<Kind<'a>> =
            able.filter_map(|(required, waiting)| Kind::new(required, None, waiting.open.iter().copied())).collect();
        for (agent, capabilities) in &agents {
            let kept = tasks
                .kept
                .range(((*agent).clone(), BTreeSet::<Capability>::new())..)
                .take_while(|((of, _), _)| of == *agent);
            let kept = kept.filter(|((_, required), _)| required.is_subset(capabilities));
            kinds.extend(
                kept.filter_map(|((of, required), ranks)| Kind::new(required, Some(of), ranks.iter().copied())),
            );
        }
        for ((only, required), ranks) in opened(tasks, now, looks) {
            let wanted = match only {
                None => somebody_can(required),
                Some(only) => agents.get(only).is_some_and(|capabilities| required.is_subset(capabilities)),
            };
            if wanted {
                kinds.extend(Kind::new(required, only, ranks.into_iter()));
            }
        }
        Self { tasks, now, kinds, looks }
    }

    /// Passes over all tasks with these requirements: no agent with room can do them.
    pub(crate) fn pass_over(&mut self, required: &BTreeSet<Capability>) {
        self.kinds.retain(|kind| kind.required != required || kind.only.is_some());
    }

    /// Notes that an agent takes no more: no other agent may have the tasks kept for it.
    pub(crate) fn has_enough(&mut self, agent: &AgentId) {
        self.kinds.retain(|kind| kind.only != Some(agent));
    }

    fn is_free(&self, task: &Task, only: Option<&AgentId>) -> bool {
        match standing(task, self.now) {
            Standing::Everybody => true,
            Standing::Only(agent) => only == Some(agent),
            Standing::Nobody => false,
        }
    }
}

/// The tasks whose standing at an instant differs from that at the last entry, by the agent that they are kept for and
/// by what they require. If there are more than one claim looks at, the others wait for the next entry.
fn opened(
    tasks: &Tasks,
    now: LogInstant,
    looks: u64,
) -> BTreeMap<(Option<&AgentId>, &BTreeSet<Capability>), BTreeSet<Rank>> {
    let mut opened: BTreeMap<_, BTreeSet<Rank>> = BTreeMap::new();
    let most = usize::try_from(looks).unwrap_or(usize::MAX);
    for (_, id) in tasks.gates.range(..=(now, TaskId::from_bytes([u8::MAX; 16]))).take(most) {
        let Some(task) = tasks.records.get(id) else { continue };
        let only = match standing(task, now) {
            Standing::Everybody => None,
            Standing::Only(agent) => Some(agent),
            Standing::Nobody => continue,
        };
        opened.entry((only, &task.spec.required)).or_default().insert(rank(task));
    }
    opened
}

impl<'a> Iterator for Claimable<'a> {
    type Item = &'a Task;

    fn next(&mut self) -> Option<&'a Task> {
        while self.looks > 0 {
            let (at, _) = self.kinds.iter().enumerate().min_by_key(|(_, kind)| kind.next)?;
            let ((_, _, id), only) = (self.kinds[at].next, self.kinds[at].only);
            match self.kinds[at].rest.next() {
                Some(next) => self.kinds[at].next = next,
                None => drop(self.kinds.swap_remove(at)),
            }
            self.looks -= 1;
            if let Some(task) = self.tasks.records.get(&id).filter(|task| self.is_free(task, only)) {
                return Some(task);
            }
        }
        None
    }
}
