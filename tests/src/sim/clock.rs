//! How voters learn the log clock.

use skep_fleet::CLOCK_ROUND_MS_MAX;
use skep_protocol::time::LogInstant;

use super::nodes::Nodes;
use super::parcel::Message;

impl Nodes {
    /// The clock of the leader moves a voter's estimate; a voter without one asks.
    pub(super) fn on_clock_in_frame(&mut self, host: usize, leader: usize, clock: LogInstant) {
        let (boot_ms, run) = (self.ports.boot_ms(host), self.ports.machines[host].run);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let asks = replica.asked_clock_ms.is_some_and(|at| boot_ms.saturating_sub(at) <= CLOCK_ROUND_MS_MAX);
        if !replica.clock.hear(clock, boot_ms) && !asks {
            replica.asked_clock_ms = Some(boot_ms);
            self.ports.send(host, leader, Message::AskClock { from: host, run, asked_ms: boot_ms });
        }
    }

    pub(super) fn on_ask_clock(&mut self, host: usize, from: usize, run: u32, asked_ms: u64) {
        let boot_ms = self.ports.boot_ms(host);
        let Some(replica) = &self.hosts[host].replica else { return };
        let leads = replica.lead.as_ref().is_some_and(|lead| lead.orchestrator.is_some());
        if let Some(clock) = replica.clock.now(boot_ms).filter(|_| leads) {
            self.ports.send(host, from, Message::Clock { run, asked_ms, clock });
        }
    }

    pub(super) fn on_clock(&mut self, host: usize, run: u32, asked_ms: u64, clock: LogInstant) {
        let (boot_ms, same_run) = (self.ports.boot_ms(host), self.ports.machines[host].run == run);
        if let Some(replica) = self.hosts[host].replica.as_mut().filter(|_| same_run) {
            replica.clock.learn(clock, asked_ms, boot_ms);
        }
    }
}
