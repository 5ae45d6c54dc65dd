//! The agents that this node serves: attached, kept alive, told what they hold.

mod claims;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::agent::{AgentOp, AgentRefusal};
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::entry::Op;
use skep_protocol::heartbeat::{AgentHeartbeat, Heartbeat, HeartbeatReply, Renewal};
use skep_protocol::ids::{AttachmentId, CommandId, NodeId, ShardId, TaskId};
use skep_protocol::lease::{LeaseTerms, Usable};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::outcome::{NotDone, Receipt};
use skep_protocol::position::Position;
use skep_protocol::settled::Settled;
use skep_protocol::text::{AgentId, GroupName};

use crate::ask::{Ask, Asked};
use crate::event::AgentEvent;
use crate::inbox::Taker;
use crate::key::{StreamKey, UpdateKey};
use claims::Held;

/// How long an attach or detach is tried, in milliseconds.
const REQUEST_PATIENCE_MS: u64 = 10_000;

/// Heartbeats in the shortest lease.
const HEARTBEATS_PER_LEASE: u64 = 5;
/// Heartbeats of one shard that are under way. Where an answer takes longer than they are apart, a lease would end before the
/// answer to one that is sent after the answer to the one before it. One more waits for an answer.
const HEARTBEATS_UNDER_WAY_MAX: usize = 4;

/// What the agents' machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AgentsWant {
    /// Ask a shard; its answer is for [`Agents::answered`].
    Ask(Ask<AgentsPurpose>),
    /// Tell an agent.
    Tell { stream: StreamKey, message: AgentTold },
    /// Answer an update.
    Noted { key: UpdateKey, noted: bool },
    /// An attached agent takes commands.
    Takes(Taker),
    /// The lease of an agent that takes commands was renewed.
    Renewed { stream: StreamKey, lease: Usable },
    /// A stream is that of an attached agent no more.
    Gone { stream: StreamKey },
}

/// What a shard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentsPurpose {
    /// The attachment of a stream begins, or ends.
    Attachment(StreamKey),
    /// The heartbeat of this number, which no other one has.
    Heartbeat { shard: ShardId, number: u64 },
}

/// What an agent that takes commands says of itself.
#[derive(Clone, Debug)]
struct Takes {
    groups: BTreeSet<GroupName>,
    in_hand: BTreeSet<CommandId>,
}

/// One stream of an agent.
#[derive(Clone, Debug)]
struct AgentStream {
    wish: AttachWish,
    lease: LeaseTerms,
    /// None until the shard has attached it.
    attachment: Option<AttachmentId>,
    /// It has stopped by itself.
    detaching: bool,
    /// What it said when it took commands, if it does.
    takes: Option<Takes>,
    /// Tasks that may be assigned under the attachment in all.
    credit_limit: u64,
    /// Its newest keep-alive, and the newest that a renewal was asked for with.
    stamp: Option<u64>,
    asked_stamp: Option<u64>,
    /// Its lease as it was renewed last.
    renewed: Option<Usable>,
    /// When that was asked for.
    asked_ms: Option<u64>,
    place: Option<Position>,
    /// The index of the newest update; none before the first.
    as_of: Option<u64>,
    held: BTreeMap<TaskId, Held>,
    /// Tasks that were assigned and told, and those that were assigned and had ended before they could be.
    told: u64,
    missed: u64,
}

/// A heartbeat that is under way.
#[derive(Clone, Debug)]
struct Said {
    /// The stamps that it asks renewals for.
    stamps: BTreeMap<StreamKey, u64>,
    /// When it was sent.
    asked_ms: u64,
}

/// The heartbeats of one shard that are under way, and what waits for the next.
#[derive(Clone, Debug, Default)]
struct Beat {
    /// By their numbers.
    under_way: BTreeMap<u64, Said>,
    /// Streams that have something new to say.
    dirty: BTreeSet<StreamKey>,
    /// When all are said again.
    at_ms: u64,
    /// How long the last one that ended took.
    took_ms: u64,
}

/// The agents of this node.
///
/// An agent is attached by the log, for a run of its software; its claims live as long as its lease, which is renewed
/// only from its own keep-alives. What it may do is counted from a stamp of its own clock that it gave before the
/// renewal was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    local: NodeId,
    config: EngineConfig,
    streams: BTreeMap<StreamKey, AgentStream>,
    /// The stream of each attached agent.
    attached: BTreeMap<(ShardId, AgentId), StreamKey>,
    beats: BTreeMap<ShardId, Beat>,
    /// The number of the newest heartbeat.
    heartbeats: u64,
    wants: VecDeque<AgentsWant>,
}

impl Agents {
    pub(crate) fn new(local: NodeId, config: EngineConfig) -> Self {
        Self {
            local,
            config,
            streams: BTreeMap::new(),
            attached: BTreeMap::new(),
            beats: BTreeMap::new(),
            heartbeats: 0,
            wants: VecDeque::new(),
        }
    }

    pub(crate) fn handle(&mut self, event: AgentEvent, now_ms: u64) {
        match event {
            AgentEvent::Opened { stream, wish } => self.on_opened(stream, wish),
            AgentEvent::Said { stream, said } => self.on_said(stream, said, now_ms),
            AgentEvent::Update { key, shard, update } => self.on_update(key, shard, update, now_ms),
        }
    }

    fn on_said(&mut self, stream: StreamKey, said: AgentSaid, now_ms: u64) {
        match said {
            AgentSaid::Credits(count) => self.on_credits(stream, count, now_ms),
            AgentSaid::KeepAlive { stamp, place } => self.on_keep_alive(stream, stamp, place, now_ms),
            AgentSaid::TakesCommands { groups, in_hand } => self.on_takes_commands(stream, Takes { groups, in_hand }),
            AgentSaid::Detach => self.on_detach(stream),
            AgentSaid::Closed => drop(self.remove(stream)),
            // It is for the inboxes.
            AgentSaid::Command(..) => {}
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        let due: Vec<ShardId> =
            self.beats.iter().filter(|(_, beat)| beat.at_ms <= now_ms).map(|(shard, _)| *shard).collect();
        for shard in due {
            let heartbeat_ms = self.heartbeat_ms(shard);
            let streams: Vec<StreamKey> = self.attached_streams(shard).collect();
            let Some(beat) = self.beats.get_mut(&shard) else { continue };
            if streams.is_empty() {
                self.beats.remove(&shard);
                continue;
            }
            beat.at_ms = now_ms + heartbeat_ms;
            beat.dirty.extend(streams);
            self.say(shard, HEARTBEATS_UNDER_WAY_MAX, now_ms);
        }
    }

    /// Somebody else leads a shard, or says so: it hears of the agents at once.
    pub(crate) fn speak_up(&mut self, shard: ShardId, now_ms: u64) {
        if let Some(beat) = self.beats.get_mut(&shard).filter(|beat| beat.under_way.is_empty()) {
            beat.at_ms = now_ms;
            self.handle_timeout(now_ms);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.beats.values().map(|beat| beat.at_ms).min()
    }

    pub(crate) fn poll_want(&mut self) -> Option<AgentsWant> {
        self.wants.pop_front()
    }

    /// A shard answered, or did not.
    pub(crate) fn answered(&mut self, purpose: AgentsPurpose, settled: Settled, now_ms: u64) {
        match purpose {
            AgentsPurpose::Attachment(stream) => self.on_request_ended(stream, settled, now_ms),
            AgentsPurpose::Heartbeat { shard, number } => {
                let said = self.beats.get_mut(&shard).and_then(|beat| beat.under_way.remove(&number));
                if let Some(said) = said {
                    self.on_heartbeat_ended(shard, &said, settled, now_ms);
                }
            }
        }
    }

    /// Whether an agent is attached here under a lease that runs: then no other node serves it.
    pub(crate) fn serves(&self, agent: &AgentId, now_ms: u64) -> bool {
        let runs = |opened: &AgentStream| {
            opened.asked_ms.is_some_and(|asked_ms| now_ms < asked_ms.saturating_add(opened.lease.ttl_ms))
        };
        let mut streams = self.beats.keys().filter_map(|shard| {
            let stream = self.attached.get(&(*shard, agent.clone()))?;
            self.streams.get(stream)
        });
        streams.any(runs)
    }

    fn attached_streams(&self, shard: ShardId) -> impl Iterator<Item = StreamKey> + '_ {
        self.attached.iter().filter(move |((of, _), _)| *of == shard).map(|(_, stream)| *stream)
    }

    fn shortest_ttl_ms(&self, shard: ShardId) -> Option<u64> {
        self.streams.values().filter(|opened| opened.wish.shard == shard).map(|opened| opened.lease.ttl_ms).min()
    }

    /// The interval of heartbeats: short enough for the shortest lease.
    fn heartbeat_ms(&self, shard: ShardId) -> u64 {
        let shortest = self.shortest_ttl_ms(shard).map(|ttl_ms| ttl_ms / HEARTBEATS_PER_LEASE);
        self.config.heartbeat_ms.min(shortest.unwrap_or(u64::MAX)).max(1)
    }

    /// How long a heartbeat is waited for: twice as long as the one before it took, whether that was answered or not, so that
    /// a slow link has the time that it needs. What is confirmed when the shortest lease is over is of no use.
    fn patience_ms(&self, shard: ShardId) -> u64 {
        let least = self.heartbeat_ms(shard) * 2;
        let most = self.shortest_ttl_ms(shard).unwrap_or(least).max(least);
        self.beats.get(&shard).map_or(least, |beat| beat.took_ms.saturating_mul(2)).clamp(least, most)
    }

    fn tell(&mut self, stream: StreamKey, message: AgentTold) {
        self.wants.push_back(AgentsWant::Tell { stream, message });
    }

    fn end(&mut self, stream: StreamKey, why: Option<NotDone>) {
        if self.remove(stream).is_some() {
            self.tell(stream, AgentTold::Ended(why));
        }
    }

    fn remove(&mut self, stream: StreamKey) -> Option<AgentStream> {
        let opened = self.streams.remove(&stream)?;
        if opened.takes.is_some() {
            self.wants.push_back(AgentsWant::Gone { stream });
        }
        let key = (opened.wish.shard, opened.wish.agent.clone());
        if self.attached.get(&key) == Some(&stream) {
            self.attached.remove(&key);
        }
        if let Some(beat) = self.beats.get_mut(&opened.wish.shard) {
            beat.dirty.remove(&stream);
            beat.under_way.values_mut().for_each(|said| _ = said.stamps.remove(&stream));
        }
        Some(opened)
    }

    fn on_opened(&mut self, stream: StreamKey, wish: AttachWish) {
        if self.streams.len() >= limits::AGENTS_PER_NODE_MAX {
            let retry_after_ms = self.config.retry_ms_max;
            return self.tell(stream, AgentTold::Ended(Some(NotDone::Overloaded { retry_after_ms })));
        }
        let lease = wish.lease.unwrap_or(self.config.lease);
        let (shard, agent) = (wish.shard, wish.agent.clone());
        // Another stream of the same run of its software is one that it gave up.
        let same = |s: &AgentStream| (s.wish.shard, &s.wish.agent, s.wish.session) == (shard, &agent, wish.session);
        let given_up: Vec<StreamKey> = self.streams.iter().filter(|(_, s)| same(s)).map(|(key, _)| *key).collect();
        given_up.into_iter().for_each(|old| self.end(old, None));
        let opened = AgentStream {
            wish,
            lease,
            attachment: None,
            detaching: false,
            takes: None,
            credit_limit: 0,
            stamp: None,
            asked_stamp: None,
            renewed: None,
            asked_ms: None,
            place: None,
            as_of: None,
            held: BTreeMap::new(),
            told: 0,
            missed: 0,
        };
        self.streams.insert(stream, opened);
        self.ask_for_attach(stream);
    }

    fn ask_for_attach(&mut self, stream: StreamKey) {
        let Some(AgentStream { wish, lease, .. }) = self.streams.get(&stream) else { return };
        let (shard, agent, session) = (wish.shard, wish.agent.clone(), wish.session);
        let op = AgentOp::Attach { agent, role: wish.role.clone(), node: self.local, session, lease: *lease };
        self.request(stream, shard, op);
    }

    fn request(&mut self, stream: StreamKey, shard: ShardId, op: AgentOp) {
        let (purpose, work) = (AgentsPurpose::Attachment(stream), Asked::Op(Op::Agent(op)));
        self.wants.push_back(AgentsWant::Ask(Ask { purpose, shard, work, patience_ms: REQUEST_PATIENCE_MS }));
    }

    fn on_credits(&mut self, stream: StreamKey, count: u64, now_ms: u64) {
        let Some(opened) = self.streams.get_mut(&stream) else { return };
        opened.credit_limit = opened.credit_limit.saturating_add(count.min(limits::CREDITS_MAX));
        self.mark(stream, now_ms);
    }

    fn on_keep_alive(&mut self, stream: StreamKey, stamp: u64, place: Option<Position>, now_ms: u64) {
        let Some(opened) = self.streams.get_mut(&stream) else { return };
        // The first renewal is asked for at once; the others with the next heartbeat.
        let first = opened.stamp.is_none();
        opened.stamp = opened.stamp.max(Some(stamp));
        opened.place = place.or(opened.place);
        if first {
            self.mark(stream, now_ms);
        }
    }

    fn on_takes_commands(&mut self, stream: StreamKey, takes: Takes) {
        if let Some(opened) = self.streams.get_mut(&stream) {
            opened.takes = Some(takes);
            self.say_takes(stream);
        }
    }

    /// Has the commands of an agent taken, once it is attached and takes any.
    fn say_takes(&mut self, stream: StreamKey) {
        let Some(opened) = self.streams.get(&stream) else { return };
        if let Some((attachment, Takes { groups, in_hand })) = opened.attachment.zip(opened.takes.clone()) {
            let lease = opened.renewed;
            let AttachWish { shard, agent, session, .. } = opened.wish.clone();
            let taker = Taker { stream, shard, agent, session, attachment, groups, in_hand, lease };
            self.wants.push_back(AgentsWant::Takes(taker));
        }
    }

    fn on_detach(&mut self, stream: StreamKey) {
        let Some(opened) = self.streams.get_mut(&stream).filter(|opened| !opened.detaching) else { return };
        opened.detaching = true;
        self.ask_for_detach(stream);
    }

    /// Has the attachment ended, once there is one.
    fn ask_for_detach(&mut self, stream: StreamKey) {
        let Some(opened) = self.streams.get(&stream) else { return };
        let Some(attachment) = opened.attachment else { return };
        let (shard, agent) = (opened.wish.shard, opened.wish.agent.clone());
        self.request(stream, shard, AgentOp::Detach { agent, attachment });
    }

    fn on_request_ended(&mut self, stream: StreamKey, settled: Settled, now_ms: u64) {
        let Some(opened) = self.streams.get_mut(&stream) else { return };
        match settled {
            Settled::Done { receipt: Receipt::Attached { attachment, lease, .. }, .. } => {
                opened.attachment = Some(attachment);
                opened.lease = lease;
                let detaching = opened.detaching;
                let key = (opened.wish.shard, opened.wish.agent.clone());
                if let Some(former) = self.attached.insert(key, stream).filter(|former| *former != stream) {
                    self.end(former, None);
                }
                self.tell(stream, AgentTold::Attached { attachment, lease });
                self.say_takes(stream);
                self.mark(stream, now_ms);
                if detaching {
                    self.ask_for_detach(stream);
                }
            }
            Settled::NotDone(why) => self.end(stream, Some(why)),
            // Nobody knows: it is asked for again, which a second attachment of one session, or a second end of one
            // attachment, makes safe.
            Settled::Unknown if opened.detaching => self.ask_for_detach(stream),
            Settled::Unknown => self.ask_for_attach(stream),
            Settled::Done { .. } | Settled::Read(_) | Settled::Heard(_) | Settled::Pulled(_) => self.end(stream, None),
        }
    }

    /// An attached agent has something new to say.
    fn mark(&mut self, stream: StreamKey, now_ms: u64) {
        let Some(opened) = self.streams.get(&stream).filter(|opened| opened.attachment.is_some()) else { return };
        let shard = opened.wish.shard;
        let heartbeat_ms = self.heartbeat_ms(shard);
        let fresh = || Beat { at_ms: now_ms + heartbeat_ms, ..Beat::default() };
        self.beats.entry(shard).or_insert_with(fresh).dirty.insert(stream);
        self.say(shard, 1, now_ms);
    }

    /// Sends what is new, unless so many heartbeats are under way: then it goes with the next.
    fn say(&mut self, shard: ShardId, under_way_max: usize, now_ms: u64) {
        let patience_ms = self.patience_ms(shard);
        let has_room = |beat: &&mut Beat| beat.under_way.len() < under_way_max;
        let Some(beat) = self.beats.get_mut(&shard).filter(has_room) else { return };
        let dirty = std::mem::take(&mut beat.dirty);
        let (mut agents, mut stamps) = (Vec::new(), BTreeMap::new());
        for stream in dirty {
            let Some(opened) = self.streams.get_mut(&stream) else { continue };
            let Some(attachment) = opened.attachment else { continue };
            let renew = opened.stamp > opened.asked_stamp && !opened.detaching;
            if let Some(stamp) = opened.stamp.filter(|_| renew) {
                opened.asked_stamp = Some(stamp);
                stamps.insert(stream, stamp);
            }
            let (agent, credit_limit, place) = (opened.wish.agent.clone(), opened.credit_limit, opened.place);
            agents.push(AgentHeartbeat { agent, attachment, credit_limit, place, renew });
        }
        if agents.is_empty() {
            return;
        }
        self.heartbeats += 1;
        beat.under_way.insert(self.heartbeats, Said { stamps, asked_ms: now_ms });
        let purpose = AgentsPurpose::Heartbeat { shard, number: self.heartbeats };
        let work = Asked::Heartbeat(Heartbeat { agents });
        self.wants.push_back(AgentsWant::Ask(Ask { purpose, shard, work, patience_ms }));
    }

    fn on_heartbeat_ended(&mut self, shard: ShardId, said: &Said, settled: Settled, now_ms: u64) {
        let Said { stamps, asked_ms } = said;
        if let Some(beat) = self.beats.get_mut(&shard) {
            beat.took_ms = now_ms.saturating_sub(*asked_ms);
        }
        match settled {
            Settled::Heard(reply) => self.on_renewals(shard, said, reply),
            // Said again at the next turn, renewals with the same stamps.
            Settled::Done { .. } | Settled::Read(_) | Settled::Pulled(_) | Settled::NotDone(_) | Settled::Unknown => {
                for stream in stamps.keys() {
                    if let Some(opened) = self.streams.get_mut(stream) {
                        opened.asked_stamp = None;
                    }
                }
                let streams: Vec<StreamKey> = self.attached_streams(shard).collect();
                if let Some(beat) = self.beats.get_mut(&shard) {
                    beat.dirty.extend(streams);
                }
                return;
            }
        }
        if self.beats.get(&shard).is_some_and(|beat| !beat.dirty.is_empty()) {
            self.say(shard, 1, now_ms);
        }
    }

    fn on_renewals(&mut self, shard: ShardId, said: &Said, reply: HeartbeatReply) {
        for renewed in reply.agents {
            let key = (shard, renewed.agent.clone());
            let Some(stream) = self.attached.get(&key).copied() else { continue };
            let Some(opened) = self.streams.get_mut(&stream) else { continue };
            if opened.attachment != Some(renewed.attachment) {
                continue;
            }
            match renewed.renewal {
                Renewal::Confirmed => {
                    let newest = opened.stamp.filter(|_| is_on(Mutant::LeaseFromReceipt));
                    if let Some(stamp) = newest.or(said.stamps.get(&stream).copied()) {
                        // The answers to two heartbeats may overtake each other.
                        if opened.renewed.is_some_and(|known| known.stamp > stamp) {
                            continue;
                        }
                        let renewed = Usable { stamp, usable_ms: opened.lease.holder_ms() };
                        opened.renewed = Some(renewed);
                        opened.asked_ms = Some(said.asked_ms);
                        let takes = opened.takes.is_some();
                        self.tell(stream, AgentTold::Lease(renewed));
                        if takes {
                            self.wants.push_back(AgentsWant::Renewed { stream, lease: renewed });
                        }
                    }
                }
                Renewal::NotConfirmed => {
                    // The next heartbeat asks again, from the newest keep-alive.
                    opened.asked_stamp = None;
                }
                Renewal::NotAttached => {
                    let (agent, attachment) = (renewed.agent, renewed.attachment);
                    let ended = AgentRefusal::NotAttached { agent, attachment };
                    self.end(stream, Some(NotDone::Refused(ended.into())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
