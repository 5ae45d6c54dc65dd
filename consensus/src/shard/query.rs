//! Answering queries from a replica.

use std::time::Duration;

use openraft::ReadPolicy;
use skep_protocol::limits;
use skep_protocol::query::{Answer, AsOf, Query, QueryFailure, QueryReply};
use skep_protocol::task::TaskStatus;

use super::Shard;

/// How long an answer may wait for the history to catch up with what is applied.
const HISTORY_WAIT: Duration = Duration::from_secs(2);

impl Shard {
    /// Answers with everything acknowledged before the query. Only the leader can.
    pub(crate) async fn query_linearizable(&self, query: Query) -> Result<QueryReply, QueryFailure> {
        if !self.inner.view.borrow().ready {
            let leader = self.leader().filter(|leader| *leader != self.inner.site.node);
            return Err(QueryFailure::NotLeader { leader });
        }
        let patience = Duration::from_millis(self.inner.site.config.rpc_timeout_ms);
        match tokio::time::timeout(patience, self.raft().ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Ok(Ok(_)) => self.answer(query, true).await,
            Ok(Err(_)) | Err(_) => Err(QueryFailure::NoQuorum),
        }
    }

    /// Answers from this replica as it is.
    pub(crate) async fn query_stale(&self, query: Query) -> Result<QueryReply, QueryFailure> {
        self.answer(query, false).await
    }

    async fn answer(&self, query: Query, linearizable: bool) -> Result<QueryReply, QueryFailure> {
        let as_of = {
            let state = self.inner.state.read();
            AsOf {
                index: state.applied().map_or(0, |position| position.index),
                stamp: state.clock(),
                clock: self.inner.clock.now(),
                linearizable,
                age_ms: self.inner.clock.leader_age_ms(),
            }
        };
        let answer = match query {
            Query::History { task, after_index, limit } => {
                self.wait_for_history(as_of.index + 1).await;
                let history = self.inner.site.store.history().clone();
                let shard = self.inner.id;
                let read = move || history.of_task(shard, task, after_index, limit as usize);
                let (records, more) = blocking(read).await?;
                Answer::History { records, more }
            }
            Query::Changes { from } => {
                let history = self.inner.site.store.history().clone();
                let shard = self.inner.id;
                let (sets, next) = blocking(move || history.changes(shard, from)).await?;
                Answer::Changes { sets, next }
            }
            other => self.answer_from_state(other),
        };
        Ok(QueryReply { as_of, answer })
    }

    async fn wait_for_history(&self, next: u64) {
        let mut progress = self.inner.site.store.history().progress(self.inner.id);
        let _ = tokio::time::timeout(HISTORY_WAIT, progress.wait_for(|written| *written >= next)).await;
    }

    fn answer_from_state(&self, query: Query) -> Answer {
        let state = self.inner.state.read();
        let page = |limit: u32| (limit as usize).clamp(1, limits::PAGE_ITEMS_MAX);
        match query {
            Query::Task(id) => Answer::Task(state.task(&id).cloned().map(Box::new)),
            Query::Tasks { statuses, after, limit } => {
                let wanted = |status: TaskStatus| statuses.is_empty() || statuses.contains(&status);
                let mut bytes = 0;
                let mut tasks = Vec::new();
                let mut next = None;
                for task in state.tasks_after(after).filter(|task| wanted(task.state.status())) {
                    bytes += 1_024 + task.spec.payload.len();
                    if tasks.len() == page(limit) || bytes > limits::FRAME_BYTES_MAX / 2 {
                        next = tasks.last().map(|task: &skep_protocol::task::Task| task.id);
                        break;
                    }
                    tasks.push(task.clone());
                }
                Answer::Tasks { tasks, next }
            }
            Query::Agents { after, limit } => {
                let mut agents: Vec<_> = state.agents_after(after.as_ref()).take(page(limit) + 1).collect();
                let more = agents.len() > page(limit);
                agents.truncate(page(limit));
                let next = if more { agents.last().map(|agent| agent.id.clone()) } else { None };
                Answer::Agents { agents, next }
            }
            Query::Counts | Query::History { .. } | Query::Changes { .. } => Answer::Counts(state.counts()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, crate::store::HistoryError> + Send + 'static,
) -> Result<T, QueryFailure> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result.map_err(|e| QueryFailure::Storage(e.to_string())),
        Err(e) => Err(QueryFailure::Storage(e.to_string())),
    }
}
