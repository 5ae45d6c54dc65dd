//! Why a task waits.

use std::collections::BTreeSet;

use skep_protocol::task::{Task, TaskState, WaitReason};
use skep_protocol::text::Capability;
use skep_protocol::time::LogInstant;

use super::Agents;

/// Why no agent works on a task at an instant; none if an agent does, or if the task has ended.
pub(crate) fn why_waiting(task: &Task, now: LogInstant, agents: &Agents) -> Option<WaitReason> {
    let TaskState::Pending { not_before, kept_for } = &task.state else { return None };
    if *not_before > now {
        return Some(WaitReason::BackingOff { until: *not_before });
    }
    if let Some(kept) = kept_for.as_ref().filter(|kept| kept.exclusive && kept.until > now) {
        return Some(WaitReason::KeptFor { agent: kept.agent.clone(), until: kept.until });
    }
    let required = &task.spec.required;
    let (mut attached, mut capable, mut free) = (0, 0, 0);
    let mut offered: BTreeSet<&Capability> = BTreeSet::new();
    for (capabilities, serving) in agents.serving() {
        #[cfg(test)]
        crate::state::looks::count();
        attached += serving.agents;
        offered.extend(capabilities.intersection(required));
        if required.is_subset(capabilities) {
            capable += serving.agents;
            free += serving.agents.saturating_sub(serving.busy);
        }
    }
    Some(if attached == 0 {
        WaitReason::NoAgents
    } else if capable == 0 {
        let lacking: Vec<Capability> = required.iter().filter(|c| !offered.contains(c)).cloned().collect();
        let lacking = if lacking.is_empty() { required.iter().cloned().collect() } else { lacking };
        WaitReason::NobodyCapable { attached, lacking }
    } else if free == 0 {
        WaitReason::AllBusy { capable }
    } else {
        WaitReason::NobodyReady { capable, free }
    })
}
