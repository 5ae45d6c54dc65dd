//! The members of the site that this node has met.
//!
//! The node that signed an envelope need not be a neighbour: it was one once, and its chain held then. This node asks
//! each time whether that node is still a member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use skep_admission::SiteHandle;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::text::AgentId;
use skep_trust::{Member, Refusal, Role};

#[derive(Debug, Default)]
struct Met {
    /// Each member, with the number of the meeting in which this node last met it.
    of: BTreeMap<NodeId, (u64, Arc<Member>)>,
    meetings: u64,
}

/// The site, and the members that this node has met. Cheap to clone. No task holds the lock while it waits for
/// anything.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    pub(crate) site: SiteHandle,
    met: Arc<Mutex<Met>>,
}

impl Members {
    pub(crate) fn of(site: SiteHandle) -> Self {
        Self { site, met: Arc::default() }
    }

    /// Notes that a member was admitted. If there are too many, the node forgets the member that it met longest ago,
    /// and meets it again later.
    pub(crate) fn meet(&self, member: &Arc<Member>) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.meetings += 1;
        let meeting = met.meetings;
        met.of.insert(member.key.node(), (meeting, Arc::clone(member)));
        if met.of.len() > limits::MESH_MEMBERS_MAX {
            let first = met.of.iter().min_by_key(|(_, (meeting, _))| *meeting).map(|(node, _)| *node);
            if let Some(node) = first {
                met.of.remove(&node);
            }
        }
    }

    /// A member that this node has met; none if it has not.
    fn met(&self, node: NodeId) -> Option<Arc<Member>> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.of.get(&node).map(|(_, member)| Arc::clone(member))
    }

    /// Judges all members that this node has met: under another root document it verifies their chains again, so that
    /// each later question is answered at once.
    pub(crate) fn judge_all(&self) {
        for member in self.all_met() {
            let _ = self.site.judge(&member);
        }
    }

    fn all_met(&self) -> Vec<Arc<Member>> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.of.values().map(|(_, member)| Arc::clone(member)).collect()
    }

    /// Whether this node has met a node that was revoked since. A node whose certificate has ended may have another
    /// one.
    pub(crate) fn is_revoked(&self, node: NodeId) -> bool {
        let judged = self.met(node).map(|member| self.site.judge(&member));
        matches!(judged, Some(Err(Refusal::Revoked { .. })))
    }

    /// The member with a key, if this node has met it and it is still a member.
    pub(crate) fn member(&self, node: NodeId) -> Option<Arc<Member>> {
        self.met(node).filter(|member| self.site.judge(member).is_ok())
    }
}

/// Whether a member may publish for an agent: its certificate names that agent, and a role that may do more than read,
/// or vote without data.
pub(crate) fn may_publish(member: &Member, source: &AgentId) -> bool {
    let speaks = |role: &Role| !matches!(role, Role::Observer | Role::Witness);
    member.grants.roles.iter().any(speaks) && member.serves(source)
}
