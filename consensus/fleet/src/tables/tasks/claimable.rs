//! What can be claimed, in its order.
//!
//! Where a pending task stands follows from the task and the clock of the state, and is kept up to date as that goes on. So
//! whoever looks for work sees what it may have, and nothing else: however many tasks wait for their time, are kept for
//! somebody or have become worthless, they hide nothing that is ready.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;
use skep_protocol::ids::TaskId;
use skep_protocol::task::{Priority, Task, TaskState};
use skep_protocol::text::{AgentId, Capability};
use skep_protocol::time::LogInstant;

use super::Tasks;

/// Where a pending task stands among all: the most urgent first, then the oldest.
type Rank = (Reverse<Priority>, u64, TaskId);
/// Pending tasks in their order.
pub(super) type Ranks = OrdSet<Rank>;

/// Pending tasks that require the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    /// How many, those included that nobody may have now.
    count: u64,
    /// Those that whoever can do them may have.
    open: Ranks,
}

/// Who may have a task that it can do.
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

/// When a pending task stands otherwise than before.
fn gates(task: &Task) -> [Option<LogInstant>; 3] {
    let TaskState::Pending { not_before, kept_for } = &task.state else { return [None; 3] };
    let kept = kept_for.as_ref().filter(|kept| kept.exclusive).map(|kept| kept.until);
    [Some(*not_before), kept, task.expires_at]
}

impl Tasks {
    /// Pending tasks that one of these agents may have at an instant, most urgent first, of those that it can do. The instant
    /// is not before the last entry. So many are looked at and no more.
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

    /// The clock has come to where it is: what it has passed stands otherwise. Each task is looked at once for each of its
    /// instants.
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

/// Tasks that require the same, of which some were not looked at yet.
struct Kind<'a> {
    required: &'a BTreeSet<Capability>,
    /// Whose they are alone; none if anybody may have them.
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

/// Tasks that can be claimed, most urgent first, over all requirements that somebody meets. Looks at a bounded number of
/// tasks, each of which somebody may have.
pub(crate) struct Claimable<'a> {
    tasks: &'a Tasks,
    now: LogInstant,
    kinds: Vec<Kind<'a>>,
    looks: u64,
}

impl<'a> Claimable<'a> {
    /// Tasks for these agents, with what each of them can do.
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

    /// Nobody can do any more what requires this.
    pub(crate) fn pass_over(&mut self, required: &BTreeSet<Capability>) {
        self.kinds.retain(|kind| kind.required != required || kind.only.is_some());
    }

    /// An agent takes no more: nobody else may have what is its alone.
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

/// What stands otherwise at an instant than at the last entry, by whose alone it is and what it requires. Of more than is
/// looked at for one claim the rest waits for the next entry.
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
