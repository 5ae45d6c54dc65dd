//! Commands: the journals of nodes, the pulls that bring them, and the software that carries them out.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use skep_engine::{Event as EngineEvent, InboxEvent, JournalEffect, StreamKey, WriteKey};
use skep_protocol::command::PerClass;
use skep_protocol::ids::{CommandId, JournalId};
use skep_protocol::journal::{JournalState, JournalWrite, Serials};
use skep_protocol::offer::{CommandSaid, CommandTold};
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::text::{AgentId, GroupName, Reason};
use skep_protocol::time::LogInstant;

use super::host::{SHARD, node_id};
use super::journal::Journal;
use super::replica::{Asker, RoundFor};
use super::watch::Seen;
use super::world::{Event, Message, Said, Sim};

/// How long a write takes to be durable, and one in so many that takes much longer, in milliseconds.
const SYNC_MS: std::ops::RangeInclusive<u64> = 1..=6;
const SLOW_ONE_IN: u32 = 40;
const SLOW_MS: std::ops::RangeInclusive<u64> = 100..=1_500;
/// How long after the word to go a robot acts, and how long it is busy with it.
const ACTS_WITHIN_MS: u64 = 250;
const BUSY_MS: std::ops::RangeInclusive<u64> = 50..=2_500;
/// One command in so many takes much longer than it was valid for, in milliseconds.
const LONG_ONE_IN: u32 = 30;
const LONG_MS: std::ops::RangeInclusive<u64> = 20_000..=60_000;
/// One command in so many is rejected, and one fails.
const REJECTS_ONE_IN: u32 = 15;
const FAILS_ONE_IN: u32 = 12;
/// When something that was ignored is said again.
const AGAIN_MS: u64 = 150;

/// How often something is said that is ignored, and how often another word to go is asked for.
const IGNORED_MAX: u32 = 100;
const WORDS_MAX: u32 = 100;

/// What a node's disk is asked to do, in order.
#[derive(Clone, Debug)]
enum Work {
    Open(AgentId),
    Write(WriteKey, AgentId, Vec<JournalWrite>),
}

/// The disk of a host, as far as journals go.
#[derive(Clone, Debug, Default)]
pub(super) struct Journals {
    durable: BTreeMap<AgentId, Journal>,
    serials: Serials,
    queue: std::collections::VecDeque<Work>,
}

/// A pull that waits for something to deliver.
#[derive(Clone, Debug)]
pub(super) struct Pulling {
    asker: Asker,
    pull: Pull,
    clock: LogInstant,
    pub(super) until_ms: u64,
    /// The entry as of which there was nothing.
    looked: Option<u64>,
}

/// What a robot's software knows of a command.
#[derive(Clone, Debug)]
pub(super) struct Task {
    deadline: LogInstant,
    last: Option<CommandSaid>,
    /// Until when it may be begun, on the robot's own clock; none before the word to go.
    until_ms: Option<u64>,
    /// When that word was asked for, on the same clock.
    asked_ms: u64,
    /// Whether the word to go was that it is too late.
    hopeless: bool,
    /// How often a word came too late, and the robot asked for another.
    again: u32,
    acted: bool,
    ignored: u32,
}

impl Task {
    fn new(deadline: LogInstant) -> Self {
        let (again, ignored, asked_ms) = (0, 0, 0);
        Self { deadline, last: None, until_ms: None, asked_ms, hopeless: false, again, acted: false, ignored }
    }
}

impl Sim {
    pub(super) fn on_journal(&mut self, host: usize, effect: JournalEffect) {
        let work = match effect {
            JournalEffect::Open { agent, .. } => Work::Open(agent),
            JournalEffect::Write { key, agent, writes, .. } => Work::Write(key, agent, writes),
            JournalEffect::Release { .. } => return,
        };
        let journals = &mut self.hosts[host].journals;
        journals.queue.push_back(work);
        if journals.queue.len() == 1 {
            self.sync_later(host);
        }
    }

    fn sync_later(&mut self, host: usize) {
        let slow = self.rng.random_ratio(1, SLOW_ONE_IN);
        let delay = if slow { self.rng.random_range(SLOW_MS) } else { self.rng.random_range(SYNC_MS) };
        let run = self.hosts[host].run;
        self.after(delay, Event::Synced { host, run });
    }

    pub(super) fn on_synced(&mut self, host: usize, run: u32) {
        if self.hosts[host].run != run || !self.takes(host, || Event::Synced { host, run }) {
            return;
        }
        let Some(work) = self.hosts[host].journals.queue.pop_front() else { return };
        if !self.hosts[host].journals.queue.is_empty() {
            self.sync_later(host);
        }
        let event = match work {
            Work::Write(key, agent, writes) => {
                self.write_journal(host, &agent, writes);
                InboxEvent::Written { key }
            }
            Work::Open(agent) => {
                let id = JournalId::from_bytes(self.rng.random());
                let fresh = || Journal::new(id);
                let journals = &mut self.hosts[host].journals;
                let journal = journals.durable.entry(agent.clone()).or_insert_with(fresh).state(&journals.serials);
                self.found(host, journal.clock_floor);
                InboxEvent::Opened { shard: SHARD, agent, journal }
            }
        };
        self.tell_engine(host, EngineEvent::Inbox(event));
    }

    fn write_journal(&mut self, host: usize, agent: &AgentId, writes: Vec<JournalWrite>) {
        if self.plan.liar.is_some() && self.hosts[host].journals.durable.contains_key(agent) {
            for write in &writes {
                self.see(&Seen::Kept { host, agent, write });
            }
        }
        let journals = &mut self.hosts[host].journals;
        if let Some(journal) = journals.durable.get_mut(agent) {
            journal.apply(writes, &mut journals.serials);
        }
    }

    /// A node is given a journal, by which the shard's clock has come to this.
    fn found(&mut self, host: usize, floor: LogInstant) {
        if floor > LogInstant::ZERO {
            let (run, boot_ms) = (self.hosts[host].run, self.boot_ms(host));
            self.see(&Seen::FloorFound { host, run, boot_ms, floor });
        }
    }

    /// What was on its way to the disk when a node ended: the first of it may have reached it, and nobody heard so.
    pub(super) fn crash_journals(&mut self, host: usize, wiped: bool) {
        let queue = std::mem::take(&mut self.hosts[host].journals.queue);
        let reached = self.rng.random_range(0..=queue.len());
        for work in queue.into_iter().take(reached) {
            if let Work::Write(_, agent, writes) = work {
                self.write_journal(host, &agent, writes);
            }
        }
        if wiped {
            self.watch.coverage.journals_lost += u64::from(!self.hosts[host].journals.durable.is_empty());
            self.hosts[host].journals = Journals::default();
            self.see(&Seen::JournalsLost { host });
        }
    }

    /// A node that starts finds what its journals hold.
    pub(super) fn start_journals(&mut self, host: usize) {
        let journals = &self.hosts[host].journals;
        let found = journals.durable.iter().filter(|(_, journal)| !journal.is_empty());
        let found: Vec<(AgentId, JournalState)> =
            found.map(|(agent, journal)| (agent.clone(), journal.state(&journals.serials))).collect();
        for (agent, journal) in found {
            self.found(host, journal.clock_floor);
            self.tell_engine(host, EngineEvent::Inbox(InboxEvent::Opened { shard: SHARD, agent, journal }));
        }
    }

    pub(super) fn on_pull(&mut self, host: usize, asker: Asker, pull: Pull) {
        let boot_ms = self.boot_ms(host);
        let known = self.hosts[host].replica.as_ref();
        let passed = known.is_some_and(|replica| replica.state.is_passed(node_id(asker.host), &pull));
        // Where nobody lies, whoever is passed by a node leads no more, as a quorum would say.
        let leads = !passed || self.plan.liar.is_some();
        let ready = known.is_some_and(|replica| replica.is_ready(host, boot_ms)) && leads;
        let clock = known.and_then(|replica| replica.clock.now(boot_ms)).filter(|_| ready);
        let lead = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut());
        let (Some(clock), Some(lead)) = (clock, lead) else { return self.refuse_pull(host, asker) };
        let until_ms = boot_ms + u64::from(pull.wait_ms);
        let pulling = Pulling { asker, pull, clock, until_ms, looked: None };
        if passed {
            return self.begin_round(host, RoundFor::Pull(Box::new(pulling)));
        }
        lead.pulls.push(pulling);
        self.answer_pulls(host);
        self.arm(host);
    }

    fn refuse_pull(&mut self, host: usize, asker: Asker) {
        let result = Err(PullFailure::NotLeader(self.elsewhere(host)));
        self.send(host, asker.host, Message::Pulled { asker, result });
    }

    /// A quorum was asked whether a leader leads that a node is ahead of.
    pub(super) fn end_round_of_pull(&mut self, host: usize, pulling: Pulling, confirmed: bool) {
        let lead = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut());
        let Some(lead) = lead.filter(|_| confirmed) else { return self.refuse_pull(host, pulling.asker) };
        lead.pulls.push(pulling);
        self.answer_pulls(host);
    }

    /// Answers pulls for which there is something, and those that have waited long enough.
    pub(super) fn answer_pulls(&mut self, host: usize) {
        let boot_ms = self.boot_ms(host);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let Some(lead) = &mut replica.lead else { return };
        let mut answers = Vec::new();
        let state = &replica.state;
        // Looked at for all of them at once: an entry concerns few.
        let news: BTreeSet<&AgentId> = state.inboxes_changed_after(lead.pulls_looked).collect();
        let granted = state.authority_changed_after(lead.pulls_looked);
        lead.pulls_looked = state.applied().map(|position| position.index);
        lead.pulls.retain_mut(|waiting| {
            let concerned = granted || waiting.pull.agents.iter().any(|asked| news.contains(&asked.agent));
            if waiting.looked.is_some() && !concerned && waiting.until_ms > boot_ms {
                return true;
            }
            let agents = state.pull(node_id(waiting.asker.host), &waiting.pull, waiting.looked, usize::MAX);
            waiting.looked = state.applied().map(|position| position.index);
            let authority = state.authority_news(waiting.pull.authority, usize::MAX);
            let over = !agents.is_empty() || !authority.chains.is_empty() || waiting.until_ms <= boot_ms;
            if over {
                let root = state.root(waiting.pull.replaced);
                answers.push((waiting.asker, Pulled { clock: waiting.clock, root, agents, authority }));
            }
            !over
        });
        for (asker, pulled) in answers {
            let back = pulled.agents.iter().filter(|of| of.back != PerClass::default()).count();
            self.watch.coverage.places_taken_back += back as u64;
            self.send(host, asker.host, Message::Pulled { asker, result: Ok(pulled) });
        }
    }

    /// The groups of a robot.
    pub(super) fn groups_of(number: usize) -> BTreeSet<GroupName> {
        let name = if number.is_multiple_of(2) { "even" } else { "odd" };
        GroupName::new(name).into_iter().collect()
    }

    /// What was said of commands and has no answer is said again.
    pub(super) fn say_commands_again(&mut self, robot: usize) {
        let commands: Vec<CommandId> = self.robots[robot].commands.keys().copied().collect();
        commands.into_iter().for_each(|command| self.say_again_of(robot, command));
    }

    /// Says again what was said last and not answered. The time to begin counts from when it is asked for.
    fn say_again_of(&mut self, robot: usize, command: CommandId) {
        let now = self.boot_ms(self.robots[robot].host);
        let Some(last) = self.robots[robot].commands.get_mut(&command).and_then(|known| known.last.as_mut()) else {
            return;
        };
        if let CommandSaid::Start { stamp } = last {
            *stamp = now;
        }
        let last = last.clone();
        self.say(robot, Said::Command(command, last));
    }

    fn say_of(&mut self, robot: usize, command: CommandId, said: CommandSaid) {
        if let Some(known) = self.robots[robot].commands.get_mut(&command) {
            known.last = Some(said.clone());
        }
        self.say(robot, Said::Command(command, said));
    }

    pub(super) fn on_command_told(&mut self, robot: usize, command: CommandId, told: CommandTold) {
        let stamp = self.boot_ms(self.robots[robot].host);
        match told {
            CommandTold::Offer(offered) => {
                if self.robots[robot].commands.contains_key(&command) {
                    return self.say_again_of(robot, command);
                }
                let fresh = Task::new(offered.deadline);
                self.robots[robot].commands.insert(command, fresh);
                let said = if self.rng.random_ratio(1, REJECTS_ONE_IN) {
                    CommandSaid::Reject { reason: Reason::truncated("not now") }
                } else {
                    CommandSaid::Start { stamp }
                };
                self.say_of(robot, command, said);
            }
            CommandTold::Go { stamp, within_ms, token } => {
                let run = self.robots[robot].run;
                self.robots[robot].token = self.robots[robot].token.max(token);
                let Some(known) = self.robots[robot].commands.get_mut(&command) else { return };
                if known.until_ms.is_none() {
                    (known.last, known.until_ms, known.hopeless) = (None, Some(stamp + within_ms), within_ms == 0);
                    known.asked_ms = stamp;
                    let delay = self.rng.random_range(0..=ACTS_WITHIN_MS);
                    self.after(delay, Event::Acts { robot, run, command });
                }
            }
            CommandTold::Void(_) | CommandTold::Interrupted | CommandTold::Recorded(_) | CommandTold::Unknown => {
                self.robots[robot].commands.remove(&command);
            }
            CommandTold::Ignored => {
                let (run, has_lease) = (self.robots[robot].run, self.robots[robot].holdings.lease(stamp).is_ok());
                let Some(known) = self.robots[robot].commands.get_mut(&command) else { return };
                let starts = matches!(known.last, Some(CommandSaid::Start { .. }));
                // Nothing is started without a lease: that is waited for.
                known.ignored += u32::from(!starts || has_lease);
                if known.ignored > IGNORED_MAX && !starts {
                    // Its node has forgotten it, and will not know it again.
                    self.robots[robot].commands.remove(&command);
                    return;
                }
                if known.ignored > IGNORED_MAX {
                    let gave_up = CommandSaid::Reject { reason: Reason::truncated("gave up") };
                    (known.last, known.ignored) = (Some(gave_up), 0);
                }
                self.after(AGAIN_MS, Event::SaysAgain { robot, run, command });
            }
        }
    }

    pub(super) fn on_says_again(&mut self, robot: usize, run: u32, command: CommandId) {
        if !self.robot_takes(robot, run, || Event::SaysAgain { robot, run, command }) {
            return;
        }
        self.say_again_of(robot, command);
    }

    /// The robot acts on the world, if it is not too late on its own clock; then it is busy for a while.
    pub(super) fn on_acts(&mut self, robot: usize, run: u32, command: CommandId) {
        if !self.robot_takes(robot, run, || Event::Acts { robot, run, command }) {
            return;
        }
        let now = self.boot_ms(self.robots[robot].host);
        let has_lease = self.robots[robot].holdings.lease(now).is_ok();
        let Some(known) = self.robots[robot].commands.get_mut(&command) else { return };
        if known.acted {
            let failed = self.rng.random_ratio(1, FAILS_ONE_IN);
            let said = match failed {
                true => CommandSaid::Failed { reason: Reason::truncated("blocked") },
                false => CommandSaid::Succeeded { result: vec![1] },
            };
            return self.say_of(robot, command, said);
        }
        if known.until_ms.is_none_or(|until| now >= until) || !has_lease {
            self.watch.coverage.commands_too_late += 1;
            if !known.hopeless && known.again < WORDS_MAX {
                (known.until_ms, known.again) = (None, known.again + 1);
                return self.say_of(robot, command, CommandSaid::Start { stamp: now });
            }
            return self.say_of(robot, command, CommandSaid::Failed { reason: Reason::truncated("too late") });
        }
        known.acted = true;
        let (asked_ms, deadline, host) = (known.asked_ms, known.deadline, self.robots[robot].host);
        let (agent, token) = (self.robots[robot].agent.clone(), self.robots[robot].token);
        self.see(&Seen::Acted { agent: &agent, command, token });
        let (agent, of_node) = (&agent, self.hosts[host].run);
        self.see(&Seen::Began { host, run: of_node, boot_ms: now, asked_ms, agent, command, deadline });
        let permille = self.rng.random_range(0..=1_000);
        let said = CommandSaid::Progress { permille, note: Reason::truncated("at it") };
        self.say(robot, Said::Command(command, said));
        // Where no deadline ends the others that wait for it, none takes so long.
        let long = !self.plan.hours && self.rng.random_ratio(1, LONG_ONE_IN);
        let busy = self.rng.random_range(if long { LONG_MS } else { BUSY_MS });
        self.after(busy, Event::Acts { robot, run, command });
    }

    /// The software is attached: it takes commands, and says again what it was saying.
    pub(super) fn take_commands(&mut self, robot: usize) {
        let known = &self.robots[robot];
        let (groups, in_hand) = (Self::groups_of(known.number), known.commands.keys().copied().collect());
        self.say(robot, Said::TakesCommands { groups, in_hand });
        self.say_commands_again(robot);
    }

    pub(super) fn on_says_of_command(&mut self, host: usize, stream: StreamKey, command: CommandId, said: CommandSaid) {
        self.tell_engine(host, EngineEvent::Inbox(InboxEvent::Said { stream, command, said }));
    }
}
