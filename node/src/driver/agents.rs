//! Agents and their software, between API and engine.

use std::collections::BTreeMap;

use skep_engine::{AgentEvent, Event, StreamKey};
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use tokio::sync::mpsc;

/// The streams of agents.
#[derive(Default)]
pub(super) struct AgentsPort {
    /// The channel of each stream to its agent.
    streams: BTreeMap<StreamKey, mpsc::Sender<AgentTold>>,
}

impl AgentsPort {
    /// An agent wants to be attached. `told` takes what the agent is told.
    pub(super) fn opened(&mut self, stream: u64, wish: AttachWish, told: mpsc::Sender<AgentTold>) -> Event {
        let stream = StreamKey(stream);
        self.streams.insert(stream, told);
        Event::Agent(AgentEvent::Opened { stream, wish })
    }

    /// An agent said something.
    pub(super) fn said(&mut self, stream: u64, said: AgentSaid) -> Event {
        let stream = StreamKey(stream);
        if said == AgentSaid::Closed {
            self.streams.remove(&stream);
        }
        Event::Agent(AgentEvent::Said { stream, said })
    }

    /// Tells an agent something. A stream that cannot take it is closed, and the engine hears of that.
    pub(super) fn tell(&mut self, stream: StreamKey, told: AgentTold) -> Option<Event> {
        if let AgentTold::Ended(_) = told {
            // A dropped sender ends the stream behind the message.
            let _ = self.streams.remove(&stream).map(|agent| agent.try_send(told));
            return None;
        }
        let taken = self.streams.get(&stream).is_some_and(|agent| agent.try_send(told).is_ok());
        if taken {
            return None;
        }
        self.streams.remove(&stream);
        Some(Event::Agent(AgentEvent::Said { stream, said: AgentSaid::Closed }))
    }
}
