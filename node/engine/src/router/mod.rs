//! The router: work in, attempts and answers out.

mod shard;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::NotDone;
use skep_protocol::settled::Settled;

use crate::connectivity::{Connectivity, Permission};
use crate::event::{AttemptTarget, Effect, Event, Outcome, Work};
use crate::key::WorkKey;
use crate::known::{Lead, Word};
use crate::route::{Next, Route, proof, under_new_id};
use shard::ShardState;

/// How often in a row a piece of work follows the leaders that are named, before it waits.
const FOLLOWS_MAX: u32 = 3;

/// Carries work to the leaders of shards.
///
/// # Contract
/// - Every submitted piece of work is answered exactly once, within its patience, unless it is abandoned.
/// - Nobody is asked, and nobody is believed, who neither votes nor is marked as a voter: whoever is listed could answer as a
///   leader does, and make a request seem done, or report an earlier clock.
/// - A request is attempted under one id. Once an attempt may have been carried out, the answer is never "not done",
///   unless the shard itself says what became of the id.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    local: NodeId,
    config: EngineConfig,
    /// Peers that are marked as voters. They are believed, and of all others those who are known to vote in a shard.
    marked: BTreeSet<NodeId>,
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
            marked: BTreeSet::new(),
            peers_up: BTreeSet::new(),
            shards: BTreeMap::new(),
            routes: BTreeMap::new(),
            timers: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    /// These peers are marked as voters.
    pub(crate) fn mark(&mut self, voters: BTreeSet<NodeId>) {
        self.marked = voters;
    }

    /// Whether what a node says of a shard is believed.
    fn believes(&self, shard: ShardId, node: NodeId) -> bool {
        let of_shard = self.shards.get(&shard).is_some_and(|state| state.known.believes(node, &self.marked));
        of_shard || self.marked.contains(&node) || is_on(Mutant::StrangerBelieved)
    }

    /// Takes note of something that happened.
    pub(crate) fn handle(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Submit { key, shard, work, patience_ms } => self.on_submit(key, shard, work, patience_ms, now_ms),
            Event::Abandon { key } => self.on_abandon(key),
            Event::Outcome { key, attempt, outcome } => self.on_outcome(key, attempt, outcome, now_ms),
            Event::Leader { shard, hint, ready } => self.on_leader(shard, hint, ready, now_ms),
            Event::Leads { shard, by, hint } => self.on_leads(shard, by, &hint, now_ms),
            Event::NotMember { shard } => {
                if let Some(state) = self.shards.get_mut(&shard) {
                    (state.member, state.ready) = (false, false);
                    self.judge_all(now_ms);
                    self.tell_known(shard);
                }
            }
            Event::Peers { up } => {
                self.peers_up = up;
                self.judge_all(now_ms);
            }
            Event::Settled { .. } | Event::Agent(_) | Event::Inbox(_) | Event::Topic(_) => {}
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
        let patience_ms = self.config.no_quorum_after_ms;
        let connectivity = self.shards.values().filter_map(|state| state.lost_at(patience_ms)).min();
        let timer = self.timers.first().map(|(at, _)| *at);
        [connectivity, timer].into_iter().flatten().min()
    }

    /// Who is thought to lead a shard, in which term.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<(NodeId, u64)> {
        self.shards.get(&shard)?.known.lead().map(|lead| (lead.node, lead.term))
    }

    /// The shards of which this node is a member, or has heard who leads them or votes.
    pub(crate) fn shards_heard_of(&self) -> Vec<ShardId> {
        let heard_of = |state: &ShardState| state.member || state.known.is_heard_of();
        self.shards.iter().filter(|(_, state)| heard_of(state)).map(|(shard, _)| *shard).collect()
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
        if !self.has_room_for(shard) {
            self.effects.push_back(Effect::Answer { key, settled: Settled::NotDone(NotDone::NoQuorum) });
            return;
        }
        let state = self.shards.entry(shard).or_default();
        if state.known.lead().is_none() && state.leaderless_since_ms.is_none() {
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
            tried: VecDeque::new(),
            in_doubt: false,
            last: NotDone::NoQuorum,
            follows: 0,
        };
        self.routes.insert(key, route);
        self.attempt(key, None, now_ms);
    }

    /// A caller does not wait any more. It is told nothing, also if its answer is ready.
    fn on_abandon(&mut self, key: WorkKey) {
        if self.remove(key).is_none() {
            self.effects.retain(|effect| !matches!(effect, Effect::Answer { key: of, .. } if *of == key));
        }
    }

    /// Whether there is a place for a shard. One that was only heard of, and that nothing is wanted from, makes room.
    fn has_room_for(&mut self, shard: ShardId) -> bool {
        if self.shards.contains_key(&shard) || self.shards.len() < limits::SHARDS_PER_NODE_MAX {
            return true;
        }
        let is_proved = |lead: Lead| lead.word == Word::Proof;
        let is_idle = |of: ShardId, state: &ShardState| {
            let wanted = state.member || state.known.lead().is_some_and(is_proved);
            !wanted && !self.routes.values().any(|route| route.shard == of)
        };
        let Some(idle) = self.shards.iter().find(|(of, state)| is_idle(**of, state)).map(|(of, _)| *of) else {
            return false;
        };
        self.shards.remove(&idle);
        self.effects.push_back(Effect::Knows { shard: idle, hint: LeaderHint::default() });
        self.effects.push_back(Effect::Connectivity { shard: idle, state: Connectivity::Connected });
        true
    }

    fn on_outcome(&mut self, key: WorkKey, attempt: u32, outcome: Outcome, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        let late = route.attempt != attempt || !route.under_way;
        // A late answer is one all the same: the work is the same, byte for byte. On a slow link every one is late at first.
        if late && !outcome.is_answer() {
            return;
        }
        route.under_way = false;
        let (shard, tried) = (route.shard, route.tried(attempt));
        let target = if late { tried.map(|tried| tried.target) } else { route.target };
        if let Some(tried) = tried.filter(|_| outcome.is_answer() && route.is_answered_at_once())
            && let Some(state) = self.shards.get_mut(&shard)
        {
            state.pace.answered(now_ms.saturating_sub(tried.at_ms));
        }
        match route.judge(outcome) {
            Next::Settle(settled) => {
                let proof = match target {
                    Some(AttemptTarget::Node(node)) => proof(&settled).map(|said| (node, said)),
                    _ => None,
                };
                self.settle(key, settled);
                if let Some((node, said)) = proof.filter(|(node, _)| !late || !self.is_led_by_another(shard, *node)) {
                    self.on_proof(shard, node, &said, now_ms);
                }
            }
            Next::Elsewhere(hint) => self.on_elsewhere(key, target, &hint, now_ms),
            Next::Wait(why) => {
                if why == NotDone::NoQuorum {
                    self.give_up_on(shard, target, now_ms);
                }
                self.wait(key, why, now_ms);
            }
        }
    }

    /// Whoever was asked does not lead, and said who may.
    fn on_elsewhere(&mut self, key: WorkKey, target: Option<AttemptTarget>, hint: &LeaderHint, now_ms: u64) {
        let Some(route) = self.routes.get(&key) else { return };
        let (shard, follows) = (route.shard, route.follows);
        self.give_up_on(shard, target, now_ms);
        let Some(state) = self.shards.get_mut(&shard) else { return self.wait(key, NotDone::NoQuorum, now_ms) };
        let asked = match target {
            Some(AttemptTarget::Node(node)) => node,
            Some(AttemptTarget::Local) | None => self.local,
        };
        let named = hint.leader.filter(|leader| *leader != asked);
        let follow = if state.member {
            // Its own replica may be behind, but not of an earlier term.
            let votes = |node: &NodeId| {
                *node == self.local || hint.voters.contains(node) || state.known.believes(*node, &self.marked)
            };
            named.filter(|leader| hint.term >= state.known.term() && votes(leader))
        } else {
            if asked == self.local || state.known.believes(asked, &self.marked) {
                state.known.hear(asked, hint, Word::Hearsay, &self.marked);
            }
            named.filter(|leader| *leader != self.local && state.known.is_thought_of(*leader))
        };
        self.judge_all(now_ms);
        self.tell_known(shard);
        match follow.filter(|_| follows < FOLLOWS_MAX) {
            Some(leader) => {
                if let Some(route) = self.routes.get_mut(&key) {
                    route.follows += 1;
                }
                self.attempt(key, Some(leader), now_ms);
            }
            None => self.wait(key, NotDone::NoQuorum, now_ms),
        }
    }

    /// Whoever was asked did not answer as a leader. A shard of which this node is a member is judged by its own replica.
    fn give_up_on(&mut self, shard: ShardId, target: Option<AttemptTarget>, now_ms: u64) {
        let Some(AttemptTarget::Node(node)) = target else { return };
        let Some(state) = self.shards.get_mut(&shard).filter(|state| !state.member) else { return };
        if state.known.is_thought_of(node) {
            state.known.give_up(node);
            self.judge_all(now_ms);
            self.tell_known(shard);
        }
    }

    /// Whether another node than this one has said, or shown, that it leads.
    fn is_led_by_another(&self, shard: ShardId, node: NodeId) -> bool {
        let lead = self.shards.get(&shard).and_then(|state| state.known.lead());
        lead.is_some_and(|lead| lead.node != node && lead.word > Word::Hearsay)
    }

    /// A node answered as only a leader does.
    fn on_proof(&mut self, shard: ShardId, node: NodeId, said: &LeaderHint, now_ms: u64) {
        // It was one when it was asked.
        if !self.believes(shard, node) {
            return;
        }
        let Some(state) = self.shards.get_mut(&shard).filter(|state| !state.member) else { return };
        let is_new = state.known.lead().is_none_or(|lead| lead.node != node);
        let is_proved = state.known.lead().is_some_and(|lead| lead.word == Word::Proof);
        state.known.prove(node, said);
        if is_new || !is_proved {
            self.judge_all(now_ms);
            self.move_work(shard, now_ms);
        }
        self.tell_known(shard);
    }

    /// A peer says that it leads. It is asked next, also what is under way elsewhere: that it has not led for long is why the
    /// others do not answer.
    fn on_leads(&mut self, shard: ShardId, by: NodeId, hint: &LeaderHint, now_ms: u64) {
        let is_believed = hint.leader == Some(by) && by != self.local && self.believes(shard, by);
        if !is_believed || !self.has_room_for(shard) {
            return;
        }
        let state = self.shards.entry(shard).or_default();
        if state.member {
            return;
        }
        // Its word has just come from it.
        self.peers_up.insert(by);
        let before = state.known.lead().map(|lead| (lead.node, lead.term));
        state.known.hear(by, hint, Word::Own, &self.marked);
        let after = state.known.lead().map(|lead| (lead.node, lead.term));
        let is_new = after != before && state.known.is_thought_of(by);
        self.judge_all(now_ms);
        if is_new {
            self.move_work(shard, now_ms);
        }
        self.tell_known(shard);
    }

    fn on_leader(&mut self, shard: ShardId, hint: LeaderHint, ready: bool, now_ms: u64) {
        let state = self.shards.entry(shard).or_default();
        let leader = hint.leader;
        let known = (state.known.lead().map(|lead| lead.node), state.ready);
        state.member = true;
        state.known.follow_replica(leader, hint.term, hint.voters);
        state.ready = ready;
        state.leaderless_since_ms = match leader {
            Some(_) => None,
            None => state.leaderless_since_ms.or(Some(now_ms)),
        };
        self.judge_all(now_ms);
        if known != (leader, ready) && leader.is_some() {
            self.move_work(shard, now_ms);
        }
    }

    /// Tries at once at the leader what waits. So is what is under way elsewhere: the one who had it does not lead any more,
    /// and a second attempt under the same id is safe.
    fn move_work(&mut self, shard: ShardId, now_ms: u64) {
        let Some(target) = self.target(shard) else { return };
        let elsewhere = |route: &Route| route.shard == shard && (!route.under_way || route.target != Some(target));
        let moving: Vec<WorkKey> =
            self.routes.iter().filter(|(_, route)| elsewhere(route)).map(|(key, _)| *key).collect();
        for key in moving {
            self.note_doubt(key);
            self.attempt(key, None, now_ms);
        }
    }

    /// Hands out what this node may tell others of a shard, if that changed. What it is a member of its replica tells.
    fn tell_known(&mut self, shard: ShardId) {
        let Some(state) = self.shards.get_mut(&shard).filter(|state| !state.member) else { return };
        let hint = state.known.to_pass_on().elsewhere(self.local);
        if state.told != hint {
            state.told = hint.clone();
            self.effects.push_back(Effect::Knows { shard, hint });
        }
    }

    fn on_timer(&mut self, key: WorkKey, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        if now_ms >= route.give_up_at_ms {
            let settled = route.give_up();
            // One that had all of the sender's patience was asked for long enough.
            let silent = (route.under_way && route.attempt == 1).then_some(route.target).flatten();
            let shard = route.shard;
            self.settle(key, settled);
            return self.give_up_on(shard, silent, now_ms);
        }
        if route.under_way {
            let (shard, target) = (route.shard, route.target);
            self.give_up_on(shard, target, now_ms);
        }
        self.note_doubt(key);
        self.attempt(key, None, now_ms);
    }

    /// An attempt under way is not waited for any more: a request may have been carried out by it.
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
            Some(node) if node == self.local => Some(AttemptTarget::Local),
            Some(node) => Some(AttemptTarget::Node(node)),
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
        route.begin(target, now_ms);
        let mut work = route.work.clone();
        if is_on(Mutant::RetryUnderNewId) && route.attempt > 1 {
            under_new_id(&mut work);
        }
        let effect = Effect::Attempt { key, attempt: route.attempt, shard, target, work };
        let waits_ms = route.waits_ms();
        let pace = self.shards.get(&shard).map(|state| state.pace).unwrap_or_default();
        let patience_ms = pace.patience_ms(self.config.attempt_timeout_ms);
        let timer = (now_ms + waits_ms + patience_ms).min(route.give_up_at_ms);
        self.set_timer(key, timer);
        self.effects.push_back(effect);
    }

    /// Where to try: whoever is thought to lead, else voters in turn, and now and then one that is only marked as a voter.
    fn target(&mut self, shard: ShardId) -> Option<AttemptTarget> {
        let state = self.shards.entry(shard).or_default();
        match state.known.lead().map(|lead| lead.node) {
            Some(leader) if leader == self.local && state.member => return state.ready.then_some(AttemptTarget::Local),
            Some(leader) if self.peers_up.contains(&leader) => return Some(AttemptTarget::Node(leader)),
            Some(leader) if !state.member => state.known.give_up(leader),
            Some(_) | None => {}
        }
        if state.member && state.connectivity != Connectivity::Connected {
            return None;
        }
        state.known.next(&self.peers_up, &self.marked).map(AttemptTarget::Node)
    }

    fn wait(&mut self, key: WorkKey, why: NotDone, now_ms: u64) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        let doubled = self.config.retry_ms_min.saturating_mul(1 << route.attempt.min(10));
        let wait = match &why {
            NotDone::Overloaded { retry_after_ms } => (*retry_after_ms).max(doubled),
            NotDone::Refused(_)
            | NotDone::NoQuorum
            | NotDone::NoSuchShard { .. }
            | NotDone::NoReplica
            | NotDone::DiskFull { .. }
            | NotDone::Storage(_) => doubled,
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
            let patience_ms = self.config.no_quorum_after_ms;
            let Some(judged) = state.judge(self.local, &self.peers_up, patience_ms, now_ms) else { continue };
            self.effects.push_back(Effect::Connectivity { shard: *shard, state: judged });
            if judged != Connectivity::Connected {
                lost.push(*shard);
            }
        }
        if lost.is_empty() {
            return;
        }
        let stranded =
            |(key, route): (&WorkKey, &Route)| (lost.contains(&route.shard) && !route.under_way).then_some(*key);
        let stranded: Vec<WorkKey> = self.routes.iter().filter_map(stranded).collect();
        stranded.into_iter().for_each(|key| self.attempt(key, None, now_ms));
    }
}
