//! The pulls that bring commands to nodes: how a leader answers them.

use std::collections::BTreeSet;

use skep_protocol::command::PerClass;
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::text::AgentId;

use super::names::node_id;
use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::{Asker, Pulling, RoundFor};

impl Nodes {
    pub(super) fn on_pull(&mut self, host: usize, asker: Asker, pull: Pull) {
        let boot_ms = self.ports.boot_ms(host);
        let known = self.hosts[host].replica.as_ref();
        let passed = known.is_some_and(|replica| replica.state.is_passed(node_id(asker.host), &pull));
        // In a run without a liar, a leader that a node is ahead of has been deposed, as a quorum would say.
        let leads = !passed || self.ports.plan.liar.is_some();
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
        self.ports.send(host, asker.host, Message::Pulled { asker, result });
    }

    /// Takes the end of a round in which a leader that a node is ahead of asked a quorum whether it leads.
    pub(super) fn end_round_of_pull(&mut self, host: usize, pulling: Pulling, confirmed: bool) {
        let lead = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut());
        let Some(lead) = lead.filter(|_| confirmed) else { return self.refuse_pull(host, pulling.asker) };
        lead.pulls.push(pulling);
        self.answer_pulls(host);
    }

    /// Answers pulls for which there is something, and those that have waited long enough.
    pub(super) fn answer_pulls(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let Some(lead) = &mut replica.lead else { return };
        let mut answers = Vec::new();
        let state = &replica.state;
        // One look serves all pulls: an entry concerns few of them.
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
            self.ports.watch.coverage.places_taken_back += back as u64;
            self.ports.send(host, asker.host, Message::Pulled { asker, result: Ok(pulled) });
        }
    }
}
