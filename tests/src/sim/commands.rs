//! What a robot's software does with commands: it asks whether it may begin, begins, and says how the command ended.

use rand::RngExt as _;
use skep_protocol::attach::AgentSaid;
use skep_protocol::ids::CommandId;
use skep_protocol::offer::{CommandSaid, CommandTold};
use skep_protocol::text::Reason;

use super::hands::Task;
use super::names::groups_of;
use super::parcel::{Event, Said};
use super::ports::Ports;
use super::robot::Robot;
use super::watch::Seen;

/// How long after the "go" a robot acts, and how long it is busy then, in milliseconds.
const ACTS_WITHIN_MS: u64 = 250;
const BUSY_MS: std::ops::RangeInclusive<u64> = 50..=2_500;
/// One command in this many takes much longer than it was valid for, in milliseconds.
const LONG_ONE_IN: u32 = 30;
const LONG_MS: std::ops::RangeInclusive<u64> = 20_000..=60_000;
/// One command in this many is rejected, and one in this many fails.
const REJECTS_ONE_IN: u32 = 15;
const FAILS_ONE_IN: u32 = 12;
/// Wait before something that was ignored is said again, in milliseconds.
const AGAIN_MS: u64 = 150;

/// How often something that is ignored is said, and how often another "go" is asked for.
const IGNORED_MAX: u32 = 100;
const WORDS_MAX: u32 = 100;

impl Robot {
    /// Says again what was said of commands and has no answer.
    fn say_commands_again(&mut self, ports: &mut Ports) {
        let commands: Vec<CommandId> = self.commands.keys().copied().collect();
        commands.into_iter().for_each(|command| self.say_again_of(ports, command));
    }

    /// Says again what was said last of a command and has no answer. The time to begin counts from the moment at which
    /// the software asks.
    fn say_again_of(&mut self, ports: &mut Ports, command: CommandId) {
        let now = self.boot_ms(ports);
        let Some(last) = self.commands.get_mut(&command).and_then(|known| known.last.as_mut()) else {
            return;
        };
        if let CommandSaid::Start { stamp } = last {
            *stamp = now;
        }
        let last = last.clone();
        self.say(ports, Said::Word(AgentSaid::Command(command, last)));
    }

    fn say_of(&mut self, ports: &mut Ports, command: CommandId, said: CommandSaid) {
        if let Some(known) = self.commands.get_mut(&command) {
            known.last = Some(said.clone());
        }
        self.say(ports, Said::Word(AgentSaid::Command(command, said)));
    }

    pub(super) fn on_command_told(&mut self, ports: &mut Ports, command: CommandId, told: CommandTold) {
        let stamp = self.boot_ms(ports);
        match told {
            CommandTold::Offer(offered) => {
                if self.commands.contains_key(&command) {
                    return self.say_again_of(ports, command);
                }
                let fresh = Task::new(offered.deadline);
                self.commands.insert(command, fresh);
                let said = if ports.rng.random_ratio(1, REJECTS_ONE_IN) {
                    CommandSaid::Reject { reason: Reason::truncated("not now") }
                } else {
                    CommandSaid::Start { stamp }
                };
                self.say_of(ports, command, said);
            }
            CommandTold::Go { stamp, within_ms, token } => {
                let (robot, run) = (self.index, self.run);
                self.token = self.token.max(token);
                let Some(known) = self.commands.get_mut(&command) else { return };
                if known.until_ms.is_none() {
                    (known.last, known.until_ms, known.hopeless) = (None, Some(stamp + within_ms), within_ms == 0);
                    known.asked_ms = stamp;
                    let delay = ports.rng.random_range(0..=ACTS_WITHIN_MS);
                    ports.after(delay, Event::Acts { robot, run, command });
                }
            }
            CommandTold::Void(_) | CommandTold::Interrupted | CommandTold::Recorded(_) | CommandTold::Unknown => {
                self.commands.remove(&command);
            }
            CommandTold::Ignored => {
                let (robot, run, has_lease) = (self.index, self.run, self.holdings.lease(stamp).is_ok());
                let Some(known) = self.commands.get_mut(&command) else { return };
                let starts = matches!(known.last, Some(CommandSaid::Start { .. }));
                // Nothing is started without a lease: the software waits for one.
                known.ignored += u32::from(!starts || has_lease);
                if known.ignored > IGNORED_MAX && !starts {
                    // Its node has forgotten it, and will not know it again.
                    self.commands.remove(&command);
                    return;
                }
                if known.ignored > IGNORED_MAX {
                    let gave_up = CommandSaid::Reject { reason: Reason::truncated("gave up") };
                    (known.last, known.ignored) = (Some(gave_up), 0);
                }
                ports.after(AGAIN_MS, Event::SaysAgain { robot, run, command });
            }
        }
    }

    pub(super) fn on_says_again(&mut self, ports: &mut Ports, run: u32, command: CommandId) {
        let robot = self.index;
        if !self.takes(run, || Event::SaysAgain { robot, run, command }) {
            return;
        }
        self.say_again_of(ports, command);
    }

    /// The robot acts on the world, if it is not too late on its own clock; then it is busy for a while.
    pub(super) fn on_acts(&mut self, ports: &mut Ports, run: u32, command: CommandId) {
        let robot = self.index;
        if !self.takes(run, || Event::Acts { robot, run, command }) {
            return;
        }
        let now = self.boot_ms(ports);
        let has_lease = self.holdings.lease(now).is_ok();
        let Some(known) = self.commands.get_mut(&command) else { return };
        if known.acted {
            let failed = ports.rng.random_ratio(1, FAILS_ONE_IN);
            let said = match failed {
                true => CommandSaid::Failed { reason: Reason::truncated("blocked") },
                false => CommandSaid::Succeeded { result: vec![1] },
            };
            return self.say_of(ports, command, said);
        }
        if known.until_ms.is_none_or(|until| now >= until) || !has_lease {
            ports.watch.coverage.commands_too_late += 1;
            if !known.hopeless && known.again < WORDS_MAX {
                (known.until_ms, known.again) = (None, known.again + 1);
                return self.say_of(ports, command, CommandSaid::Start { stamp: now });
            }
            return self.say_of(ports, command, CommandSaid::Failed { reason: Reason::truncated("too late") });
        }
        known.acted = true;
        let (asked_ms, deadline, host) = (known.asked_ms, known.deadline, self.host);
        let (agent, token, of_node) = (&self.agent, self.token, ports.machines[host].run);
        ports.see(&Seen::Acted { agent, command, token });
        ports.see(&Seen::Began { host, run: of_node, boot_ms: now, asked_ms, agent, command, deadline });
        let permille = ports.rng.random_range(0..=1_000);
        let said = CommandSaid::Progress { permille, note: Reason::truncated("at it") };
        self.say(ports, Said::Word(AgentSaid::Command(command, said)));
        // Where no deadline ends the others that wait for it, none takes so long.
        let long = !ports.plan.hours && ports.rng.random_ratio(1, LONG_ONE_IN);
        let busy = ports.rng.random_range(if long { LONG_MS } else { BUSY_MS });
        ports.after(busy, Event::Acts { robot, run, command });
    }

    /// The software is attached: it takes commands, and says again what it was saying.
    pub(super) fn take_commands(&mut self, ports: &mut Ports) {
        let (groups, in_hand) = (groups_of(self.number), self.commands.keys().copied().collect());
        self.say(ports, Said::Word(AgentSaid::TakesCommands { groups, in_hand }));
        self.say_commands_again(ports);
    }
}
