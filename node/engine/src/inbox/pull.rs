//! Asking a shard what there is for this node's agents, and taking its answer.

use skep_protocol::command::{CommandClass, PerClass};
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pull::{Pull, PullFor, Pulled};
use skep_protocol::settled::Settled;
use skep_protocol::text::AgentId;

use super::bound::ClockBound;
use super::one::{Inbox, Verified};
use super::{InboxPurpose, InboxWant, Inboxes, Whose};
use crate::ask::{Ask, Asked};

/// How much longer than it waits a pull is tried, in attempts on a quick link: on a slow one that is the time of one.
const ATTEMPTS_PER_PULL: u64 = 6;

/// The pull of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// The number of the pull that is waited for.
    pub(super) under_way: Option<u64>,
    asked_ms: u64,
    /// How many of the statements that replaced an earlier one all that it asks for know.
    authority: u64,
    /// Not before this, after one that failed.
    pub(super) at_ms: u64,
}

impl Inboxes {
    /// Asks at once for what there is, also while an earlier question waits for an answer.
    pub(super) fn pull_now(&mut self, shard: ShardId, now_ms: u64) {
        if let Some(turn) = self.turns.get_mut(&shard) {
            turn.at_ms = 0;
            if let Some(number) = turn.under_way.take() {
                self.wants.push_back(InboxWant::Abandon(InboxPurpose::Pull { shard, number }));
            }
        }
        self.pull(shard, now_ms);
    }

    /// Asks a shard what there is, unless it is being asked, or failed to answer a moment ago.
    pub(super) fn pull(&mut self, shard: ShardId, now_ms: u64) {
        let of_shard = self.inboxes.range((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        let mut open = of_shard.filter(|(_, inbox)| inbox.open).peekable();
        if open.peek().is_some() {
            let turn = self.turns.entry(shard).or_default();
            if turn.under_way.is_some() || turn.at_ms > now_ms {
                return;
            }
        }
        let journals = self.room;
        let (mut replaced, mut authority) = (u64::MAX, u64::MAX);
        let ask = |((_, agent), inbox): (&Whose, &Inbox)| {
            (replaced, authority) = (replaced.min(inbox.replaced()), authority.min(inbox.authority));
            let head = inbox.head();
            let attachment = inbox.taker.as_ref()?.attachment;
            let (journal, home, after, seen) = (head.id, head.home, head.cursor, inbox.seen);
            let room = inbox.room();
            let room = PerClass::from_fn(|class| if journals.asks_for(class) { *room.of(class) } else { 0 });
            Some(PullFor { agent: agent.clone(), attachment, journal, home, after, seen, room })
        };
        let agents: Vec<PullFor> = open.filter_map(ask).collect();
        if agents.is_empty() {
            self.turns.remove(&shard);
            return;
        }
        let of_shard = self.inboxes.range_mut((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        of_shard.for_each(|(_, inbox)| inbox.gone.clear());
        self.pulls += 1;
        let number = self.pulls;
        let turn = self.turns.entry(shard).or_default();
        (turn.under_way, turn.asked_ms, turn.authority) = (Some(number), now_ms, authority);
        let wait_ms = limits::PULL_WAIT_MS_MAX;
        let pull = Pull { agents, wait_ms, replaced, authority };
        let patience_ms = u64::from(wait_ms) + ATTEMPTS_PER_PULL * self.config.attempt_timeout_ms;
        let (purpose, work) = (InboxPurpose::Pull { shard, number }, Asked::Pull(pull));
        self.wants.push_back(InboxWant::Ask(Ask { purpose, shard, work, patience_ms }));
    }

    pub(super) fn on_pull_ended(&mut self, shard: ShardId, number: u64, settled: Settled, now_ms: u64) {
        let is_waited_for = |turn: &&mut Turn| turn.under_way == Some(number);
        let Some(turn) = self.turns.get_mut(&shard).filter(is_waited_for) else { return };
        turn.under_way = None;
        let (asked_ms, authority) = (turn.asked_ms, turn.authority);
        match settled {
            Settled::Pulled(pulled) => {
                self.on_authority(shard, &pulled, authority, now_ms);
                self.on_pulled(shard, *pulled, asked_ms, now_ms);
            }
            Settled::Done { .. } | Settled::Read(_) | Settled::Heard(_) | Settled::NotDone(_) | Settled::Unknown => {
                turn.at_ms = now_ms + self.config.retry_ms_max;
            }
        }
        self.pull(shard, now_ms);
    }

    /// What was stated about operators since concerns all inboxes of a shard, before anything that is delivered with it.
    fn on_authority(&mut self, shard: ShardId, pulled: &Pulled, asked: u64, now_ms: u64) {
        let of_shard = self.inboxes.range_mut((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        let (is_nothing, mut whoses) = (pulled.authority.chains.is_empty(), Vec::new());
        for (whose, inbox) in of_shard {
            inbox.note_told(asked, pulled.authority.up_to, inbox.open || is_nothing);
            if inbox.open && !is_nothing {
                whoses.push(whose.clone());
            }
        }
        let site = self.site.clone();
        for whose in whoses {
            self.with(&whose, now_ms, |inbox, _, out| {
                if let Some(root) = &pulled.root {
                    inbox.pin(root, (&site, shard), out);
                }
                inbox.learn(&pulled.authority, (&site, shard), out);
            });
        }
    }

    fn on_pulled(&mut self, shard: ShardId, pulled: Pulled, asked_ms: u64, now_ms: u64) {
        let asked_ms = if is_on(Mutant::ClockFromReceipt) { now_ms } else { asked_ms };
        self.hear_clock(shard, ClockBound::new(pulled.clock, asked_ms), pulled.clock, now_ms);
        let site = self.site.clone();
        let mut verified = Verified::default();
        for of in pulled.agents {
            let whose = (shard, of.agent.clone());
            let current = |inbox: &&mut Inbox| inbox.open && inbox.head().home == of.home;
            let Some(inbox) = self.inboxes.get_mut(&whose).filter(current) else { continue };
            if !of.open {
                // The attachment has ended, or another journal took over. Its software is attached anew, and then asks.
                inbox.open = false;
                continue;
            }
            inbox.seen = of.seen;
            let root = pulled.root.as_ref();
            let came = PerClass::from_fn(|class| of.deliveries.iter().any(|one| one.command.class == class));
            self.with(&whose, now_ms, |inbox, bound, out| {
                if let Some(root) = root {
                    inbox.pin(root, (&site, shard), out);
                }
                inbox.go_back(of.back, out);
                for (class, n, cause) in of.voids {
                    inbox.void(class, n, cause, out);
                }
                inbox.deliver(of.deliveries, &site, &mut verified, bound, out);
                let room = inbox.room();
                // What there is no room for does not come however often it is asked for.
                let next = |class: CommandClass| {
                    out.room.asks_for(class) && *of.more.of(class) && (*came.of(class) || *room.of(class) > 0)
                };
                if CommandClass::URGENT_FIRST.into_iter().any(next) {
                    inbox.seen = 0;
                }
            });
        }
        self.raise_clock_floors(shard, now_ms);
    }
}
