//! Agents and their software, between API and engine.

use std::collections::BTreeMap;

use skep_api::{AgentSaid, AgentTold, AttachRequest};
use skep_engine::{AgentEvent, AttachWish, Event, InboxEvent, StreamKey, ToAgent};
use tokio::sync::mpsc;

/// The streams of agents.
#[derive(Default)]
pub(super) struct AgentsPort {
    /// What each is told.
    streams: BTreeMap<StreamKey, mpsc::Sender<AgentTold>>,
}

impl AgentsPort {
    /// An agent would be attached, and is told by this way what comes of it.
    pub(super) fn opened(&mut self, stream: u64, wish: AttachRequest, told: mpsc::Sender<AgentTold>) -> Event {
        let AttachRequest { shard, agent, role, session, lease } = wish;
        let stream = StreamKey(stream);
        self.streams.insert(stream, told);
        Event::Agent(AgentEvent::Opened { stream, wish: AttachWish { shard, agent, role, session, lease } })
    }

    /// An agent said something.
    pub(super) fn said(&mut self, stream: u64, said: AgentSaid) -> Event {
        let stream = StreamKey(stream);
        Event::Agent(match said {
            AgentSaid::Credits(count) => AgentEvent::Credits { stream, count },
            AgentSaid::KeepAlive { stamp, place } => AgentEvent::KeepAlive { stream, stamp, place },
            AgentSaid::TakesCommands { groups, in_hand } => AgentEvent::TakesCommands { stream, groups, in_hand },
            AgentSaid::Command(command, said) => return Event::Inbox(InboxEvent::Said { stream, command, said }),
            AgentSaid::Detach => AgentEvent::Detach { stream },
            AgentSaid::Closed => {
                self.streams.remove(&stream);
                AgentEvent::Closed { stream }
            }
        })
    }

    /// Tells an agent something. A stream that cannot take it is closed, and the engine hears of that.
    pub(super) fn tell(&mut self, stream: StreamKey, message: ToAgent) -> Option<Event> {
        let told = match message {
            ToAgent::Attached { attachment, lease } => AgentTold::Attached { attachment, lease },
            ToAgent::Holds(claims) => AgentTold::Holds(claims),
            ToAgent::Grant(grant) => AgentTold::Grant(grant),
            ToAgent::Lost { task, epoch } => AgentTold::Lost { task, epoch },
            ToAgent::Lease(renewed) => AgentTold::Lease(renewed),
            ToAgent::Command { command, told } => AgentTold::Command(command, told),
            ToAgent::Ended(why) => {
                // Dropping the sender ends the stream behind the message.
                let _ = self.streams.remove(&stream).map(|agent| agent.try_send(AgentTold::Ended(why)));
                return None;
            }
        };
        let taken = self.streams.get(&stream).is_some_and(|agent| agent.try_send(told).is_ok());
        if taken {
            return None;
        }
        self.streams.remove(&stream);
        Some(Event::Agent(AgentEvent::Closed { stream }))
    }
}
