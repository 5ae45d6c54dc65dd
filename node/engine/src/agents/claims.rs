//! What agents hold, as the orchestrator says it, and what of that they were told.

use std::collections::BTreeMap;

use skep_protocol::agent::Grant;
use skep_protocol::attach::AgentTold;
use skep_protocol::heartbeat::{AgentClaims, ClaimsUpdate};
use skep_protocol::ids::{ClaimEpoch, ShardId, TaskId};
use skep_protocol::task::TaskState;

use super::{AgentStream, Agents, AgentsWant};
use crate::key::{StreamKey, UpdateKey};

/// What an attached agent holds, as far as it was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    epoch: ClaimEpoch,
    granted: bool,
}

impl Agents {
    pub(super) fn on_update(&mut self, key: UpdateKey, shard: ShardId, update: ClaimsUpdate, now_ms: u64) {
        let mut noted = true;
        for claims in update.agents {
            let stream = self.attached.get(&(shard, claims.agent.clone())).copied();
            let known = stream.and_then(|stream| self.streams.get(&stream)?.attachment) == Some(claims.attachment);
            match stream.filter(|_| known) {
                Some(stream) => self.on_claims(stream, update.as_of, claims, now_ms),
                None => {
                    // The update may have overtaken the answer to the attach: it must come again. If nobody is being
                    // attached, it is of an attachment that has ended here.
                    let waits = |s: &AgentStream| s.attachment.is_none() && s.wish.agent == claims.agent;
                    noted &= !self.streams.values().any(waits);
                }
            }
        }
        self.wants.push_back(AgentsWant::Noted { key, noted });
    }

    fn on_claims(&mut self, stream: StreamKey, as_of: u64, claims: AgentClaims, now_ms: u64) {
        let Some(opened) = self.streams.get_mut(&stream).filter(|s| s.as_of <= Some(as_of)) else { return };
        let first = opened.as_of.replace(as_of).is_none();
        // Before the node is known to know this no lease is renewed: nobody waits a whole turn for the first renewal.
        let may_be_renewed = first && opened.stamp.is_some() && opened.renewed.is_none();
        let now: BTreeMap<TaskId, ClaimEpoch> = claims.held.into_iter().collect();
        let mut news = Vec::new();
        if first {
            // Its software may remember claims of an earlier attachment.
            news.push(AgentTold::Holds(now.iter().map(|(task, epoch)| (*task, *epoch)).collect()));
        }
        opened.held.retain(|task, held| {
            let stays = now.get(task) == Some(&held.epoch);
            if !stays && held.granted {
                news.push(AgentTold::Lost { task: *task, epoch: held.epoch });
            }
            stays
        });
        for (task, epoch) in &now {
            opened.held.entry(*task).or_insert(Held { epoch: *epoch, granted: false });
        }
        for task in claims.tasks {
            let Some(held) = opened.held.get_mut(&task.id) else { continue };
            if held.epoch == task.epoch && !held.granted {
                held.granted = true;
                // What is held from an earlier attachment was assigned against a credit of that one.
                let spends_credit =
                    matches!(task.state, TaskState::Claimed { assigned, .. } if assigned == opened.attachment);
                opened.told += u64::from(spends_credit);
                news.push(AgentTold::Grant(Box::new(Grant { task, spends_credit, lease: opened.renewed })));
            }
        }
        // Once everything that is held was told, what is missing was assigned and had ended before.
        let all_told = opened.held.values().all(|held| held.granted);
        let missed = claims.assigned.saturating_sub(opened.told).max(opened.missed);
        let news_of_credits = all_told && missed > opened.missed;
        if news_of_credits {
            opened.credit_limit = opened.credit_limit.saturating_add(missed - opened.missed);
            opened.missed = missed;
        }
        news.into_iter().for_each(|message| self.tell(stream, message));
        if news_of_credits || may_be_renewed {
            self.mark(stream, now_ms);
        }
    }
}
