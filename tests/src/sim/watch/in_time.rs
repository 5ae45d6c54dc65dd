//! S5: nothing is accepted after its deadline.

use std::collections::BTreeMap;

use skep_protocol::change::ChangeKind;
use skep_protocol::command::{CommandChange, CommandOp};
use skep_protocol::entry::Op;
use skep_protocol::ids::{CommandId, RequestId};
use skep_protocol::time::LogInstant;

use super::{Invariant, Seen, effects};
use crate::sim::plan::{FaultKind, Plan};

/// Judged from outside, on a clock that no host in the run sees: from the reading of the shard's clock for a request to
/// the writing of the entry by the leader. An entry that was written in time and finds its quorum later takes effect
/// later: the log has decided by then, and until it has, the answer is "unknown".
pub(super) struct InTime {
    next: u64,
    made: BTreeMap<RequestId, (u64, u64)>,
    /// When entries were written, by index and term.
    written: BTreeMap<(u64, u64), u64>,
    /// How much a change of leaders may take from the log clock, in milliseconds: the delay of one frame.
    frame_ms: u64,
    elections: u64,
    /// When commands were made and for how long they are valid, by their deadlines: an operator that loses track of a
    /// command before it was sent makes it again.
    commands: BTreeMap<(CommandId, LogInstant), (u64, u64)>,
    accepted: BTreeMap<CommandId, LogInstant>,
}

impl InTime {
    pub(super) fn new(plan: &Plan) -> Self {
        let slow = plan.faults.iter().map(|fault| match fault.kind {
            FaultKind::Slow { ms } => ms,
            _ => 0,
        });
        let far = plan.far.map_or(0, |far| far.ms);
        Self {
            next: 0,
            made: BTreeMap::new(),
            written: BTreeMap::new(),
            frame_ms: slow.max().unwrap_or(0) + far + 100,
            elections: 0,
            commands: BTreeMap::new(),
            accepted: BTreeMap::new(),
        }
    }
}

impl Invariant for InTime {
    fn name(&self) -> &'static str {
        "S5"
    }

    fn see(&mut self, seen: &Seen, now: u64) -> Result<(), String> {
        match seen {
            Seen::Elected { .. } => self.elections += 1,
            Seen::Invoked { request, valid_ms } => {
                if let Op::Command(CommandOp::Send { command }) = &request.op {
                    let deadline = command.deadline;
                    let valid_ms = deadline.since_ms(request.first_sent);
                    self.commands.insert((command.id, deadline), (now, valid_ms));
                }
                self.made.insert(request.id, (now, *valid_ms));
            }
            Seen::Acted { agent, command, .. } => {
                let deadline = self.accepted.get(command).copied().unwrap_or_default();
                let Some((made, valid_ms)) = self.commands.get(&(*command, deadline)) else {
                    return Err(format!("{agent} begins {command}, which no operator made"));
                };
                // Two clocks may run slow one after the other: the shard's, and the node's since it asked for the
                // shard's.
                let allowed = valid_ms * 110 / 100 + (self.elections + 2) * self.frame_ms + 1_000;
                let after = now.saturating_sub(*made);
                if after > allowed {
                    return Err(format!("{agent} begins {command} {after} ms after it was made for {valid_ms} ms"));
                }
            }
            Seen::Written { term, index } => _ = self.written.insert((*index, *term), now),
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    if let ChangeKind::Command { command, change: CommandChange::Accepted { signed, .. } } =
                        &change.what
                    {
                        self.accepted.insert(*command, signed.deadline);
                    }
                }
                let written = self.written.get(&(position.index, position.term)).copied().unwrap_or(now);
                for request in effects(applied) {
                    let Some((made, valid_ms)) = self.made.get(&request) else { continue };
                    // This allows for clocks that run 4 % slow, for one frame of every leader so far, and for the
                    // reading of the clock itself.
                    let allowed = valid_ms * 104 / 100 + (self.elections + 2) * self.frame_ms + 1_000;
                    let after = written.saturating_sub(*made);
                    if after > allowed {
                        let late = after - valid_ms;
                        return Err(format!("{request} was valid for {valid_ms} ms and was accepted {late} ms later"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
