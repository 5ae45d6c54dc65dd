//! The indexes of tasks: those that follow from each task alone, and who holds it.

use std::sync::Arc;

use skep_protocol::ids::TaskId;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{Task, TaskRefusal, TaskState};
use skep_protocol::text::AgentId;

use super::era::expiry_of;
use super::{Agents, Cx, Due, Tasks, receipt};

impl Tasks {
    /// Takes a task out of every index, so that the caller can change it and put it back.
    pub(super) fn take(&mut self, id: TaskId, agents: &mut Agents, cx: &Cx<'_>) -> Result<Task, Refusal> {
        let task = self.records.get(&id).cloned().ok_or(TaskRefusal::NoSuchTask(id))?;
        self.unindex(&task, agents, cx);
        Ok(Arc::unwrap_or_clone(task))
    }

    /// Puts a changed task back.
    pub(super) fn put(&mut self, mut task: Task, agents: &mut Agents, cx: &mut Cx<'_>) -> Receipt {
        task.updated_at = cx.now;
        let receipt = receipt(&task);
        self.insert(task, agents, cx);
        receipt
    }

    /// Puts a task that was taken out back into every index.
    pub(super) fn insert(&mut self, task: Task, agents: &mut Agents, cx: &mut Cx<'_>) {
        if task.state.status().is_terminal() {
            let seq = cx.take_seq();
            self.ended.note(seq, task.id, task.state.status());
        }
        self.index(&task, agents, cx);
        self.records.insert(task.id, Arc::new(task));
        self.forget_ended(agents, cx);
    }

    /// Puts a task into the indexes that follow from the task alone.
    pub(super) fn index(&mut self, task: &Task, agents: &mut Agents, cx: &Cx<'_>) {
        self.bytes += task.bytes();
        match &task.state {
            TaskState::Pending { .. } => {
                self.add_pending(task, cx.now);
                self.offered_at = cx.index;
            }
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.insert((*stale_at, Due::StaleClaim, task.id));
                self.hold(by, task.id, agents, cx);
            }
            TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. } => {
                self.ended.weigh(task);
                return;
            }
        }
        if let Some(at) = expiry_of(task) {
            self.due.insert((at, Due::TaskExpiry, task.id));
        }
    }

    /// Takes a task out of these indexes before it changes.
    pub(super) fn unindex(&mut self, task: &Task, agents: &mut Agents, cx: &Cx<'_>) {
        self.bytes = self.bytes.saturating_sub(task.bytes());
        match &task.state {
            TaskState::Pending { .. } => self.remove_pending(task),
            TaskState::Claimed { by, stale_at, .. } => {
                self.due.remove(&(*stale_at, Due::StaleClaim, task.id));
                self.release(by, task.id, agents, cx);
            }
            TaskState::Completed { .. }
            | TaskState::DeadLettered { .. }
            | TaskState::Cancelled { .. }
            | TaskState::Expired { .. } => {
                self.ended.remove(task);
                return;
            }
        }
        if let Some(at) = expiry_of(task) {
            self.due.remove(&(at, Due::TaskExpiry, task.id));
        }
    }

    /// How many tasks an agent holds.
    pub(crate) fn held_count(&self, agent: &AgentId) -> u32 {
        self.held.get(agent).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }

    fn hold(&mut self, agent: &AgentId, task: TaskId, agents: &mut Agents, cx: &Cx<'_>) {
        let before = self.held_count(agent);
        self.held.entry(agent.clone()).or_default().insert(task);
        agents.note_held(agent, before, self.held_count(agent), cx.index);
    }

    fn release(&mut self, agent: &AgentId, task: TaskId, agents: &mut Agents, cx: &Cx<'_>) {
        let before = self.held_count(agent);
        if let Some(tasks) = self.held.get_mut(agent) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.held.remove(agent);
            }
        }
        agents.note_held(agent, before, self.held_count(agent), cx.index);
    }
}
