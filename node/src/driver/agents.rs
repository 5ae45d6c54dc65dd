//! Agents, their software and their journals, between API, engine and disk.

use skep_api::{AgentSaid, AgentTold, AttachRequest};
use skep_engine::{AgentEvent, AttachWish, Event, InboxEvent, JournalEffect, StreamKey, ToAgent, WriteKey};
use skep_store::{JournalJob, JournalReport};
use tokio::sync::mpsc;

use super::Driver;

impl Driver {
    pub(super) fn on_agent_opened(&mut self, stream: StreamKey, wish: AttachRequest, told: mpsc::Sender<AgentTold>) {
        let AttachRequest { shard, agent, role, session, lease } = wish;
        self.agents.insert(stream, told);
        self.on_agent(AgentEvent::Opened { stream, wish: AttachWish { shard, agent, role, session, lease } });
    }

    pub(super) fn on_agent_said(&mut self, stream: StreamKey, said: AgentSaid) {
        let event = match said {
            AgentSaid::Credits(count) => AgentEvent::Credits { stream, count },
            AgentSaid::KeepAlive { stamp, place } => AgentEvent::KeepAlive { stream, stamp, place },
            AgentSaid::TakesCommands { groups, in_hand } => AgentEvent::TakesCommands { stream, groups, in_hand },
            AgentSaid::Command(command, said) => {
                return self.on_inbox(InboxEvent::Said { stream, command, said });
            }
            AgentSaid::Detach => AgentEvent::Detach { stream },
            AgentSaid::Closed => {
                self.agents.remove(&stream);
                AgentEvent::Closed { stream }
            }
        };
        self.on_agent(event);
    }

    fn on_inbox(&mut self, event: InboxEvent) {
        self.engine.handle(Event::Inbox(event), self.now_ms());
    }

    pub(super) fn on_journal(&mut self, report: JournalReport) {
        self.on_inbox(match report {
            JournalReport::Opened { shard, agent, journal } => InboxEvent::Opened { shard, agent, journal: *journal },
            JournalReport::Written { key } => InboxEvent::Written { key: WriteKey(key) },
        });
    }

    /// The disk of the journals may be fuller than it was, or have more room.
    pub(super) fn on_pressure(&mut self) {
        let pressure = *self.journal_pressure.borrow_and_update();
        self.on_inbox(InboxEvent::Pressure(pressure));
    }

    pub(super) fn tell(&mut self, stream: StreamKey, message: ToAgent) {
        let told = match message {
            ToAgent::Attached { attachment, lease } => AgentTold::Attached { attachment, lease },
            ToAgent::Holds(claims) => AgentTold::Holds(claims),
            ToAgent::Grant(grant) => AgentTold::Grant(grant),
            ToAgent::Lost { task, epoch } => AgentTold::Lost { task, epoch },
            ToAgent::Lease(renewed) => AgentTold::Lease(renewed),
            ToAgent::Command { command, told } => AgentTold::Command(command, told),
            ToAgent::Ended(why) => {
                // Dropping the sender ends the stream behind the message.
                let _ = self.agents.remove(&stream).map(|agent| agent.try_send(AgentTold::Ended(why)));
                return;
            }
        };
        let taken = self.agents.get(&stream).is_some_and(|agent| agent.try_send(told).is_ok());
        if !taken {
            self.agents.remove(&stream);
            self.on_agent(AgentEvent::Closed { stream });
        }
    }
}

/// What the journals are to do.
pub(super) fn job(effect: JournalEffect) -> JournalJob {
    match effect {
        JournalEffect::Open { shard, agent } => JournalJob::Open { shard, agent },
        JournalEffect::Write { key, shard, agent, writes } => JournalJob::Write { key: key.0, shard, agent, writes },
        JournalEffect::Release { shard, agent } => JournalJob::Release { shard, agent },
    }
}
