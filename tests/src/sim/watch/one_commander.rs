//! S6: one owner, of the robots that are commanded.

use std::collections::BTreeMap;

use skep_protocol::agent::AgentChange;
use skep_protocol::change::ChangeKind;
use skep_protocol::ids::{AttachmentId, NodeId};
use skep_protocol::offer::GoToken;
use skep_protocol::text::AgentId;

use super::{Invariant, Seen};

/// A command is begun only by the run of a robot's software whose node the shard has given the robot to, in true time,
/// and never with a fencing token below one with which something was begun.
#[derive(Default)]
pub(super) struct OneCommander {
    next: u64,
    nodes: BTreeMap<AttachmentId, NodeId>,
    /// The attachment of each robot that is in force.
    stands: BTreeMap<AgentId, AttachmentId>,
    greatest: BTreeMap<AgentId, GoToken>,
}

impl Invariant for OneCommander {
    fn name(&self) -> &'static str {
        "S6"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, applied, .. } if position.index == self.next => {
                self.next += 1;
                for change in &applied.changes {
                    let ChangeKind::Agent { agent, change } = &change.what else { continue };
                    match change {
                        AgentChange::Attached { node, attachment } => {
                            self.nodes.insert(*attachment, *node);
                            self.stands.insert(agent.clone(), *attachment);
                        }
                        AgentChange::Detached { .. } => _ = self.stands.remove(agent),
                        _ => {}
                    }
                }
            }
            Seen::Acted { agent, command, token } => {
                let (of, stands) = (token.attachment, self.stands.get(*agent));
                let node = self.nodes.get(&of);
                if node.is_none() || node != stands.and_then(|stands| self.nodes.get(stands)) {
                    return Err(format!("{agent} begins {command} under attachment {of}, and {stands:?} stands"));
                }
                let greatest = self.greatest.entry((*agent).clone()).or_default();
                if *token < *greatest {
                    return Err(format!("{agent} begins {command} with {token:?} after {greatest:?}"));
                }
                *greatest = *token;
            }
            _ => {}
        }
        Ok(())
    }
}
