//! The router: work in, attempts and answers out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{NotDone, ProposeOutcome, Settled};

use crate::connectivity::{Connectivity, Permission};
use crate::event::{Effect, Event, Outcome, Target, Work, WorkKey};
use crate::route::{Next, Route};

#[derive(Clone, Debug, Default)]
struct ShardState {
    /// From this node's own replica, or from the answers of others.
    leader: Option<NodeId>,
    ready: bool,
    /// Whether this node's own replica tells who leads.
    member: bool,
    /// Since when nobody is known to lead; none if somebody does.
    leaderless_since_ms: Option<u64>,
    connectivity: Connectivity,
    /// Turns through the peers while nobody is known to lead.
    turn: usize,
}

/// Carries work to the leaders of shards.
///
/// # Contract
/// - Every submitted piece of work is answered exactly once, within its patience, unless it is abandoned.
/// - A command is attempted under one id. Once an attempt may have been carried out, the answer is never "not done",
///   unless the shard itself says what became of the id.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    local: NodeId,
    config: EngineConfig,
    peers_up: BTreeSet<NodeId>,
    shards: BTreeMap<ShardId, ShardState>,
    routes: BTreeMap<WorkKey, Route>,
    /// When each route is looked at next.
    timers: BTreeSet<(u64, WorkKey)>,
    effects: VecDeque<Effect>,
}

impl Router {
    /// A router that knows nobody yet. `local` is this node.
    pub(crate) fn new(local: NodeId, config: EngineConfig) -> Self {
        Self {
            local,
            config,
            peers_up: BTreeSet::new(),
            shards: BTreeMap::new(),
            routes: BTreeMap::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    /// Takes note of something that happened.
    pub(crate) fn handle(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Submit { key, shard, work, patience_ms } => self.on_submit(key, shard, work, patience_ms, now_ms),
            Event::Abandon { key } => drop(self.remove(key)),
            Event::Outcome { key, attempt, outcome } => self.on_outcome(key, attempt, outcome, now_ms),
            Event::Leader { shard, leader, ready } => self.on_leader(shard, leader, ready, now_ms),
            Event::NotMember { shard } => {
                if let Some(state) = self.shards.get_mut(&shard) {
                    (state.member, state.ready) = (false, false);
                    self.judge_all(now_ms);
                }
            }
            Event::Peers { up } => {
                self.peers_up = up;
                self.judge_all(now_ms);
            }
            Event::Agent(_) | Event::Inbox(_) | Event::Topic(_) => {}
        }
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        self.judge_all(now_ms);
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now_ms) {
            self.timers.remove(&(at, key));
            self.on_timer(key, now_ms);
        }
    }

    /// The next thing to do; none when everything is done.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), in the milliseconds of `now`.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let silent = |s: &ShardState| {
            let since = s.leaderless_since_ms.filter(|_| s.connectivity == Connectivity::Connected)?;
            Some(since + self.config.no_quorum_after_ms)
        };
        let connectivity = self.shards.values().filter_map(silent).min();
        let timer = self.timers.first().map(|(at, _)| *at);
        [connectivity, timer].into_iter().flatten().min()
    }

    /// What the node can reach of a shard.
    pub(crate) fn connectivity(&self, shard: ShardId) -> Connectivity {
        self.shards.get(&shard).map_or(Connectivity::default(), |s| s.connectivity)
    }

    fn on_submit(&mut self, key: WorkKey, shard: ShardId, work: Work, patience_ms: u64, now_ms: u64) {
        // Heartbeats are few, one for each shard, and no flood of requests may end leases.
        if self.routes.len() >= limits::ROUTED_REQUESTS_MAX && !matches!(work, Work::Heartbeat(_) | Work::Pull(_)) {
            let settled = Settled::NotDone(NotDone::Overloaded { retry_after_ms: self.config.retry_ms_max });
            self.effects.push_back(Effect::Answer { key, settled });
            return;
        }
        if !self.shards.contains_key(&shard) && self.shards.len() >= limits::SHARDS_PER_NODE_MAX {
            self.effects.push_back(Effect::Answer { key, settled: Settled::NotDone(NotDone::NoQuorum) });
            return;
        }
        let state = self.shards.entry(shard).or_default();
        if state.leader.is_none() && state.leaderless_since_ms.is_none() {
            state.leaderless_since_ms = Some(now_ms);
        }
        let route = Route {
            shard,
            work,
            give_up_at_ms: now_ms.saturating_add(patience_ms),
            attempt: 0,
            timer_ms: now_ms,
            under_way: false,
            target: None,
            in_doubt: false,
            last: NotDone::NoQuorum,
            follows: 0,
        };
        self.routes.insert(key, route);
        self.attempt(key, None, now_ms);
    }

    fn on_outcome(&mut self, key: WorkKey, attempt: u32, outcome: Outcome, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        if route.attempt != attempt || !route.under_way {
            // A late outcome still settles what it settles: the id is the same.
            let settles = matches!(outcome, Outcome::Propose(ProposeOutcome::Applied { .. }));
            if !settles {
                return;
            }
        }
        route.under_way = false;
        let (shard, target) = (route.shard, route.target);
        match route.judge(outcome) {
            Next::Settle(settled) => {
                if let (Some(Target::Node(node)), Settled::Done { .. } | Settled::Read(_) | Settled::Heard(_)) =
                    (target, &settled)
                {
                    self.note_hint(shard, Some(node), now_ms);
                }
                self.settle(key, settled);
            }
            Next::Follow(leader) if route.follows < 3 => {
                route.follows += 1;
                self.note_hint(shard, Some(leader), now_ms);
                self.attempt(key, Some(leader), now_ms);
            }
            Next::Follow(_) => self.wait(key, NotDone::NoQuorum, now_ms),
            Next::Wait(why) => {
                if why == NotDone::NoQuorum {
                    self.note_hint(shard, None, now_ms);
                }
                self.wait(key, why, now_ms);
            }
        }
    }

    /// An answer told who leads a shard of which this node is no member, or that nobody is known to.
    fn note_hint(&mut self, shard: ShardId, leader: Option<NodeId>, now_ms: u64) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| !state.member) else { return };
        if state.leader != leader {
            state.leader = leader;
            self.judge_all(now_ms);
        }
    }

    fn on_leader(&mut self, shard: ShardId, leader: Option<NodeId>, ready: bool, now_ms: u64) {
        let state = self.shards.entry(shard).or_default();
        let known = (state.leader, state.ready);
        state.member = true;
        state.leader = leader;
        state.ready = ready;
        state.leaderless_since_ms = match leader {
            Some(_) => None,
            None => state.leaderless_since_ms.or(Some(now_ms)),
        };
        self.judge_all(now_ms);
        if known == (leader, ready) || leader.is_none() {
            return;
        }
        let Some(target) = self.target(shard) else { return };
        // What waits is tried at once. So is what is under way elsewhere: the one who had it does not lead any more,
        // and a second attempt under the same id is safe.
        let elsewhere = |route: &Route| route.shard == shard && (!route.under_way || route.target != Some(target));
        let moving: Vec<WorkKey> =
            self.routes.iter().filter(|(_, route)| elsewhere(route)).map(|(key, _)| *key).collect();
        for key in moving {
            self.note_doubt(key);
            self.attempt(key, None, now_ms);
        }
    }

    fn on_timer(&mut self, key: WorkKey, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        if now_ms >= route.give_up_at_ms {
            let settled = route.give_up();
            return self.settle(key, settled);
        }
        if route.under_way
            && let Some(Target::Node(_)) = route.target
        {
            let shard = route.shard;
            self.note_hint(shard, None, now_ms);
        }
        self.note_doubt(key);
        self.attempt(key, None, now_ms);
    }

    /// An attempt under way is not waited for any more: a command may have been carried out by it.
    fn note_doubt(&mut self, key: WorkKey) {
        if let Some(route) = self.routes.get_mut(&key) {
            route.in_doubt |= route.under_way && matches!(route.work, Work::Request(_));
            route.under_way = false;
        }
    }

    /// Begins the next attempt, if there is anybody to try.
    fn attempt(&mut self, key: WorkKey, named: Option<NodeId>, now_ms: u64) {
        let Some(route) = self.routes.get(&key) else { return };
        let shard = route.shard;
        let needs = match route.work {
            Work::Request(_) => Permission::Write,
            Work::Query(_) | Work::Heartbeat(_) | Work::Pull(_) => Permission::LinearizableRead,
        };
        let target = match named {
            Some(node) if node == self.local => Some(Target::Local),
            Some(node) => Some(Target::Node(node)),
            None => self.target(shard),
        };
        let permitted = self.connectivity(shard).permits(needs);
        let Some(route) = self.routes.get_mut(&key) else { return };
        let Some(target) = target else {
            if permitted {
                return self.wait(key, NotDone::NoQuorum, now_ms);
            }
            route.last = NotDone::NoQuorum;
            let settled = route.give_up();
            return self.settle(key, settled);
        };
        route.attempt += 1;
        route.under_way = true;
        route.target = Some(target);
        let mut work = route.work.clone();
        if is_on(Mutant::RetryUnderNewId) && route.attempt > 1 {
            under_new_id(&mut work);
        }
        let effect = Effect::Attempt { key, attempt: route.attempt, shard, target, work };
        let waits_ms = match &route.work {
            Work::Pull(pull) => u64::from(pull.wait_ms),
            _ => 0,
        };
        let timer = (now_ms + waits_ms + self.config.attempt_timeout_ms).min(route.give_up_at_ms);
        self.set_timer(key, timer);
        self.effects.push_back(effect);
    }

    /// Where to try: the leader if it is known, else peers in turn.
    fn target(&mut self, shard: ShardId) -> Option<Target> {
        let state = self.shards.entry(shard).or_default();
        match state.leader {
            Some(leader) if leader == self.local && state.member => return state.ready.then_some(Target::Local),
            Some(leader) if self.peers_up.contains(&leader) => return Some(Target::Node(leader)),
            Some(_) | None => {}
        }
        if state.member && state.connectivity != Connectivity::Connected {
            return None;
        }
        let count = self.peers_up.len();
        let at = state.turn.checked_rem(count)?;
        state.turn = state.turn.wrapping_add(1);
        self.peers_up.iter().nth(at).copied().map(Target::Node)
    }

    fn wait(&mut self, key: WorkKey, why: NotDone, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        let doubled = self.config.retry_ms_min.saturating_mul(1 << route.attempt.min(10));
        let wait = match &why {
            NotDone::Overloaded { retry_after_ms } => (*retry_after_ms).max(doubled),
            _ => doubled,
        };
        // Full jitter without a random number: keys spread evenly.
        let wait = wait.min(self.config.retry_ms_max).max(1);
        let jittered = wait / 2 + key.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (wait / 2 + 1);
        route.last = why;
        route.follows = 0;
        let timer = (now_ms + jittered.max(1)).min(route.give_up_at_ms.max(now_ms + 1));
        self.set_timer(key, timer);
    }

    fn set_timer(&mut self, key: WorkKey, at_ms: u64) {
        if let Some(route) = self.routes.get_mut(&key) {
            self.timers.remove(&(route.timer_ms, key));
            route.timer_ms = at_ms;
            self.timers.insert((at_ms, key));
        }
    }

    fn settle(&mut self, key: WorkKey, settled: Settled) {
        if self.remove(key).is_some() {
            self.effects.push_back(Effect::Answer { key, settled });
        }
    }

    fn remove(&mut self, key: WorkKey) -> Option<Route> {
        let route = self.routes.remove(&key)?;
        self.timers.remove(&(route.timer_ms, key));
        Some(route)
    }

    /// Judges anew what the node can reach of every shard.
    fn judge_all(&mut self, now_ms: u64) {
        let mut lost = Vec::new();
        for (shard, state) in &mut self.shards {
            let reachable = state
                .leader
                .is_some_and(|leader| if leader == self.local { state.ready } else { self.peers_up.contains(&leader) });
            if reachable {
                state.leaderless_since_ms = None;
            } else if state.leaderless_since_ms.is_none() {
                state.leaderless_since_ms = Some(now_ms);
            }
            let patient = |since: u64| now_ms.saturating_sub(since) < self.config.no_quorum_after_ms;
            let judged = match state.leaderless_since_ms {
                None => Connectivity::Connected,
                Some(since) if patient(since) => Connectivity::Connected,
                Some(_) if self.peers_up.is_empty() => Connectivity::Isolated,
                Some(_) => Connectivity::NoQuorum,
            };
            if judged != state.connectivity {
                state.connectivity = judged;
                self.effects.push_back(Effect::Connectivity { shard: *shard, state: judged });
                if judged != Connectivity::Connected {
                    lost.push(*shard);
                }
            }
        }
        let stranded =
            |(key, route): (&WorkKey, &Route)| (lost.contains(&route.shard) && !route.under_way).then_some(*key);
        let stranded: Vec<WorkKey> = self.routes.iter().filter_map(stranded).collect();
        stranded.into_iter().for_each(|key| self.attempt(key, None, now_ms));
    }
}

/// The seeded bug of that name.
fn under_new_id(work: &mut Work) {
    if let Work::Request(request) = work {
        let mut id = *request.id.as_bytes();
        id[15] = !id[15];
        request.id = skep_protocol::ids::RequestId::from_bytes(id);
    }
}
