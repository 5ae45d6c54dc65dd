//! A site in a test: machines that crash, are cut off, lag, lose their disks and roles, and the Raft group on them.

use std::collections::{BTreeMap, BTreeSet};

use skep_fleet::placement::{
    Advice, Candidate, Copied, Link, Membership, Mode, Placement, PlacementConfig, Power, Seat, Step, Vote, Wanted,
    Why, World,
};
use skep_protocol::ids::{Incarnation, NodeId};
use skep_protocol::time::LogInstant;

/// Time between two looks, in milliseconds.
pub(crate) const TICK_MS: u64 = 10_000;

/// Random numbers by a seed (splitmix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True so often in a million.
    pub(crate) fn chance(&mut self, ppm: u64) -> bool {
        self.below(1_000_000) < ppm
    }
}

pub(crate) fn node(index: usize) -> NodeId {
    NodeId::from_public_key([index as u8 + 1; 32])
}

pub(crate) fn index(node: NodeId) -> usize {
    usize::from(node.public_key()[0]) - 1
}

pub(crate) struct Machine {
    incarnation: u8,
    pub(crate) vote: Vote,
    pub(crate) power: Power,
    pub(crate) domain: u8,
    pub(crate) up: bool,
    up_since: u64,
    pub(crate) thin: bool,
    pub(crate) may_vote: bool,
    pub(crate) leads: u32,
    /// Whether the leader saw the machine last, if it looked, and since when.
    seen: Option<bool>,
    seen_since: u64,
    log: Copied,
    /// Since when it is a member under its incarnation.
    member_since: Option<u64>,
}

impl Machine {
    pub(crate) fn new(domain: u8) -> Self {
        Self {
            incarnation: 0,
            vote: Vote::Full,
            power: Power::Mains,
            domain,
            up: true,
            up_since: 0,
            thin: false,
            may_vote: true,
            leads: 0,
            seen: None,
            seen_since: 0,
            log: Copied::NotSent,
            member_since: None,
        }
    }

    /// The machine loses its disk and starts again.
    pub(crate) fn wipe(&mut self, now: u64) {
        self.incarnation = self.incarnation.wrapping_add(1);
        (self.up, self.up_since, self.seen) = (true, now, None);
    }
}

/// A step that was taken.
pub(crate) struct Taken {
    pub(crate) at: u64,
    pub(crate) advice: Advice,
    /// The seats that may not vote any longer, or never answer again.
    pub(crate) gone: BTreeSet<Seat>,
}

pub(crate) struct Site {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) config: PlacementConfig,
    pub(crate) machines: Vec<Machine>,
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) voters: BTreeSet<Seat>,
    pub(crate) learners: BTreeSet<Seat>,
    /// The voters of a change that is under way.
    next: Option<BTreeSet<Seat>>,
    pub(crate) leader: Option<Seat>,
    placement: Placement,
    pub(crate) now: u64,
    /// The steps, in their order.
    pub(crate) steps: Vec<Taken>,
    pub(crate) last: Option<Why>,
}

fn majority(voters: &BTreeSet<Seat>) -> usize {
    voters.len() / 2 + 1
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Site {
    /// A site whose first machine is the only voter.
    pub(crate) fn new(seed: u64, config: PlacementConfig, machines: Vec<Machine>) -> Self {
        let first = Seat { node: node(0), incarnation: Incarnation([0; 16]) };
        Self {
            seed,
            mode: Mode::Auto,
            config,
            machines,
            cuts: BTreeSet::new(),
            voters: BTreeSet::from([first]),
            learners: BTreeSet::new(),
            next: None,
            leader: Some(first),
            placement: Placement::new(config, LogInstant::ZERO),
            now: 0,
            steps: Vec::new(),
            last: None,
        }
    }

    pub(crate) fn random(seed: u64, rng: &mut Rng) -> Self {
        let wanted = if rng.below(3) == 0 { Wanted::Three } else { Wanted::Five };
        let count = 1 + rng.below(9);
        let machines = (0..count).map(|n| {
            let vote = if n > 0 && rng.chance(150_000) { Vote::Witness } else { Vote::Full };
            let power = if rng.chance(600_000) { Power::Mains } else { Power::Battery { percent: 50 } };
            let leads = [0, 0, 1, 3][rng.below(4) as usize];
            let thin = n > 0 && rng.chance(100_000);
            Machine { vote, power, leads, thin, ..Machine::new(rng.below(4) as u8) }
        });
        let machines = machines.collect();
        Self::new(seed, PlacementConfig { wanted, ..PlacementConfig::default() }, machines)
    }

    pub(crate) fn seat(&self, index: usize) -> Seat {
        Seat { node: node(index), incarnation: Incarnation([self.machines[index].incarnation; 16]) }
    }

    fn is_up(&self, seat: Seat) -> bool {
        let machine = &self.machines[index(seat.node)];
        machine.up && self.seat(index(seat.node)) == seat
    }

    fn reaches(&self, from: Seat, to: Seat) -> bool {
        from == to || (self.is_up(to) && !self.cuts.contains(&pair(index(from.node), index(to.node))))
    }

    /// Whether it could lead: each set of voters has a majority that hears it and has its log.
    fn can_lead(&self, seat: Seat) -> bool {
        let follows =
            |voter: &Seat| *voter == seat || (self.reaches(seat, *voter) && !self.machines[index(voter.node)].thin);
        let has_majority =
            |voters: &BTreeSet<Seat>| voters.iter().filter(|voter| follows(voter)).count() >= majority(voters);
        let is_full = self.machines[index(seat.node)].vote == Vote::Full;
        is_full && self.is_up(seat) && [Some(&self.voters), self.next.as_ref()].into_iter().flatten().all(has_majority)
    }

    fn leaders(&self) -> Vec<Seat> {
        self.next.as_ref().unwrap_or(&self.voters).iter().copied().filter(|seat| self.can_lead(*seat)).collect()
    }

    fn begin(&mut self, leader: Seat) {
        self.leader = Some(leader);
        self.placement = Placement::new(self.config, LogInstant::from_raw(self.now));
        for machine in &mut self.machines {
            machine.seen = None;
        }
    }

    /// Lets something go wrong.
    pub(crate) fn shake(&mut self, rng: &mut Rng) {
        let count = self.machines.len() as u64;
        for at in 0..self.machines.len() {
            let leads = self.leader == Some(self.seat(at));
            let may_vote = self.machines.iter().filter(|machine| machine.may_vote).count();
            let now = self.now;
            let machine = &mut self.machines[at];
            match rng.below(10_000) {
                0..40 => (machine.up, machine.up_since) = (!machine.up, now),
                40..50 if !leads => machine.wipe(now),
                50..80 => machine.thin = !machine.thin,
                80..83 if may_vote > 2 => machine.may_vote = false,
                83..86 => machine.may_vote = true,
                86..200 => {
                    if let Power::Battery { percent } = &mut machine.power {
                        *percent = rng.below(101) as u8;
                    }
                }
                200..210 => {
                    let is_mains = machine.power == Power::Mains;
                    machine.power = if is_mains { Power::Battery { percent: 9 } } else { Power::Mains };
                }
                _ => {}
            }
        }
        if count > 2 && rng.chance(10_000) {
            self.cuts.insert(pair(rng.below(count) as usize, rng.below(count) as usize));
        }
        if rng.chance(10_000) {
            self.cuts.pop_first();
        }
        if rng.chance(1_000) {
            // All restart at once.
            for machine in &mut self.machines {
                (machine.up, machine.up_since) = (true, self.now);
            }
            self.leader = None;
        }
    }

    /// Nothing changes from now on. Some machines stay down, some links cut and some thin, as long as a voter can lead.
    pub(crate) fn calm(&mut self, rng: &mut Rng) {
        for machine in &mut self.machines {
            machine.up |= rng.chance(700_000);
        }
        self.cuts.retain(|_| rng.chance(300_000));
        for at in 0..self.machines.len() {
            if self.leaders().is_empty() {
                self.machines[at].up = true;
            }
        }
        if self.leaders().is_empty() {
            self.cuts.clear();
        }
        if self.leaders().is_empty() {
            self.machines.iter_mut().for_each(|machine| machine.thin = false);
        }
    }

    /// Whether a quorum of one set of voters lost its disks, or no node is left that may lead: no step helps.
    pub(crate) fn is_lost(&self) -> bool {
        self.leaders().is_empty()
    }

    /// What the leader sees.
    fn look(&mut self, leader: Seat) -> World {
        let members: BTreeSet<Seat> =
            self.voters.iter().chain(&self.learners).chain(self.next.iter().flatten()).copied().collect();
        for at in 0..self.machines.len() {
            let (seat, now) = (self.seat(at), self.now);
            let is_seen = self.reaches(leader, seat) && self.is_up(seat);
            let machine = &mut self.machines[at];
            if machine.seen != Some(is_seen) {
                (machine.seen, machine.seen_since) = (Some(is_seen), now);
            }
            let is_member = members.contains(&seat);
            machine.member_since = if is_member { machine.member_since.or(Some(now)) } else { None };
            let has_copied = machine.member_since.is_some_and(|since| now >= since + 2 * TICK_MS);
            machine.log = match machine.log {
                _ if !is_member => Copied::NotSent,
                _ if is_seen && !machine.thin && has_copied => Copied::Current,
                Copied::Behind { since } => Copied::Behind { since },
                Copied::Current | Copied::NotSent => Copied::Behind { since: LogInstant::from_raw(now) },
            };
        }
        let candidates = self.machines.iter().enumerate().filter(|(_, machine)| machine.may_vote);
        let candidates: BTreeMap<_, _> =
            candidates.map(|(at, machine)| (node(at), self.candidate(machine, at, leader))).collect();
        let membership = Membership {
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            leader,
            is_joint: self.next.is_some(),
            has_quorum: self.can_lead(leader),
        };
        World { candidates, membership, mode: self.mode }
    }

    fn candidate(&self, machine: &Machine, at: usize, leader: Seat) -> Candidate {
        let since = LogInstant::from_raw(machine.seen_since);
        Candidate {
            incarnation: Some(self.seat(at).incarnation),
            vote: machine.vote,
            power: machine.power,
            uptime_ms: self.now - machine.up_since,
            domain: Some(machine.domain.to_string()),
            link: if machine.seen == Some(true) { Link::Connected { since } } else { Link::Silent { since } },
            log: machine.log,
            leads: machine.leads + u32::from(self.seat(at) == leader),
        }
    }

    /// Lets a moment pass; returns the step that was taken in it.
    pub(crate) fn tick(&mut self) -> Option<Advice> {
        self.now += TICK_MS;
        let voters = self.next.as_ref().unwrap_or(&self.voters);
        if !self.leader.is_some_and(|leader| voters.contains(&leader) && self.can_lead(leader)) {
            let leaders = self.leaders();
            self.leader = None;
            // Another leader each time, and the same one by the same seed.
            let leader = leaders.get((self.now / TICK_MS) as usize % leaders.len().max(1)).copied()?;
            self.begin(leader);
        }
        let leader = self.leader?;
        if let Some(next) = self.next.take() {
            self.voters = next;
            return None;
        }
        let world = self.look(leader);
        let advice = self.placement.decide(&world, LogInstant::from_raw(self.now));
        self.last = Some(advice.why);
        assert!(!advice.why.to_string().is_empty());
        if advice.step == Step::Nothing {
            return None;
        }
        self.placement.note(&advice.step, &world, LogInstant::from_raw(self.now));
        let is_gone = |seat: &Seat| !world.candidates.contains_key(&seat.node) || self.seat(index(seat.node)) != *seat;
        let gone = self.voters.union(&self.learners).copied().filter(is_gone).collect();
        self.steps.push(Taken { at: self.now, advice: advice.clone(), gone });
        self.carry_out(&advice.step, leader);
        Some(advice)
    }

    fn carry_out(&mut self, step: &Step, leader: Seat) {
        let mut next = self.voters.clone();
        match step {
            Step::AddLearner(seat) => {
                self.learners.insert(*seat);
            }
            Step::Promote(seats) => {
                assert!(seats.iter().all(|seat| self.learners.contains(seat)), "seed {}: {step:?}", self.seed);
                next.extend(seats);
            }
            Step::Remove(seats) => {
                next.retain(|seat| !seats.contains(seat));
                self.learners.retain(|seat| !seats.contains(seat));
            }
            Step::Replace { out, into } => {
                assert!(self.learners.contains(into), "seed {}: {step:?}", self.seed);
                next.remove(out);
                next.insert(*into);
            }
            Step::TransferLead(to) => {
                let is_full = self.machines[index(to.node)].vote == Vote::Full;
                assert!(is_full, "seed {}: a witness is handed the lead: {step:?}", self.seed);
                if self.can_lead(*to) {
                    self.begin(*to);
                }
            }
            Step::Nothing => {}
        }
        if next != self.voters {
            let answering = next.iter().filter(|seat| self.reaches(leader, **seat)).count();
            assert!(answering >= majority(&next), "seed {}: no quorum of {next:?} after {step:?}", self.seed);
            assert!(next.contains(&leader), "seed {}: the leader takes itself out: {step:?}", self.seed);
            self.learners.retain(|seat| !next.contains(seat));
            self.next = Some(next);
        }
    }
}
