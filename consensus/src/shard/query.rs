//! Answers queries from a replica.

use std::time::Duration;

use skep_fleet::FleetState;
use skep_protocol::agent::AgentView;
use skep_protocol::command::CommandView;
use skep_protocol::ids::{CommandId, NodeId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::operator::OperatorGrant;
use skep_protocol::query::{Answer, AsOf, Query, QueryFailure, QueryReply};
use skep_protocol::task::{Task, TaskStatus, TaskView};
use skep_protocol::text::AgentId;
use skep_store::{ChangesFound, TransitionsFound};

use super::Shard;
use crate::threads::{Errand, Threads};

/// Most bytes of tasks on one page: the page must fit into a frame.
const PAGE_BYTES_MAX: u64 = limits::FRAME_BYTES_MAX as u64 / 2;
/// A page may take this many times as long as what a robot waits for: a client that reads lists waits longer.
const PER_PAGE: u64 = 8;

impl Shard {
    /// Answers another node, with as much as the connection to it carries. Any replica tells the history; only the
    /// leader answers all else.
    pub(crate) async fn query_for(&self, node: NodeId, query: Query) -> Result<QueryReply, QueryFailure> {
        let carries = self.inner.parts.peers.answer_bytes(node);
        match query {
            Query::Changes { .. } => self.stale(query, carries).await,
            // The room for the answer is taken before there is any answer.
            Query::CommandEnd { .. } => {
                self.linearizable(query, carries.min(limits::COMMAND_END_BYTES_SOFT_MAX as u64)).await
            }
            _ => self.linearizable(query, carries.saturating_mul(PER_PAGE).min(PAGE_BYTES_MAX)).await,
        }
    }

    /// Answers with everything that was acknowledged before the query. Only the leader can.
    pub(crate) async fn query_linearizable(&self, query: Query) -> Result<QueryReply, QueryFailure> {
        self.linearizable(query, PAGE_BYTES_MAX).await
    }

    /// Answers from this replica as it is.
    pub(crate) async fn query_stale(&self, query: Query) -> Result<QueryReply, QueryFailure> {
        self.stale(query, PAGE_BYTES_MAX).await
    }

    async fn linearizable(&self, query: Query, bytes_max: u64) -> Result<QueryReply, QueryFailure> {
        let view = *self.inner.view.borrow();
        if !view.ready {
            return Err(QueryFailure::NotLeader(self.elsewhere()));
        }
        if is_on(Mutant::StaleReadCalledLinearizable) {
            return self.answer(query, true, bytes_max).await;
        }
        if !self.confirm_in_time(view.term).await {
            return Err(QueryFailure::NoQuorum);
        }
        self.answer(query, true, bytes_max).await
    }

    async fn stale(&self, query: Query, bytes_max: u64) -> Result<QueryReply, QueryFailure> {
        // A failed group may have left half of an entry's effects in memory.
        if self.metrics().running_state.is_err() || self.inner.state.is_poisoned() {
            return Err(QueryFailure::Storage("the group failed and is out of service; see the node's log".to_owned()));
        }
        let Ok(_place) = self.inner.stale_queries.try_acquire() else { return Err(QueryFailure::Overloaded) };
        self.answer(query, false, bytes_max).await
    }

    /// Waits until a command has ended at all of its agents, for a bounded time.
    async fn wait_for_end(&self, command: CommandId, wait_ms: u32) {
        let Some(waiter) = self.inner.ends.wait_for(command) else { return };
        let mut view = self.inner.view.subscribe();
        // This is shorter than a caller on another node waits.
        let patience = Duration::from_millis(u64::from(wait_ms).min(self.inner.parts.config.rpc_timeout_ms / 2));
        let ended = async {
            loop {
                let next = waiter.next();
                if !self.inner.state.read().is_command_open(&command) {
                    return;
                }
                next.await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(patience) => {}
            // From then on another node knows how the command ends.
            _ = view.wait_for(|view| !view.ready) => {}
        }
    }

    async fn answer(&self, query: Query, linearizable: bool, bytes_max: u64) -> Result<QueryReply, QueryFailure> {
        if let Query::CommandEnd { command, wait_ms } = query
            && linearizable
        {
            self.wait_for_end(command, wait_ms).await;
        }
        let age_ms = self.age_ms();
        // One state for the whole answer, for which applying does not wait.
        let state = self.inner.state.now();
        let as_of = AsOf {
            index: state.applied().map_or(0, |position| position.index),
            stamp: state.clock(),
            clock: self.inner.clock.now(),
            linearizable,
            age_ms: if linearizable { Some(0) } else { age_ms },
        };
        let threads = &self.inner.parts.threads;
        let answer = match query {
            Query::History { task, after_index, limit } => {
                drop(state);
                self.wait_for_history(as_of.index + 1).await;
                let history = self.inner.parts.store.history().clone();
                let (shard, before) = (self.inner.id, as_of.index + 1);
                let read = move || history.transitions(shard, task, after_index, limit as usize, before);
                let TransitionsFound { records, more, complete, begins } = blocking(threads, read).await?;
                Answer::History { records, more, complete, begins }
            }
            Query::Changes { from, skip } => {
                drop(state);
                let history = self.inner.parts.store.history().clone();
                let shard = self.inner.id;
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                let found = blocking(threads, move || history.changes(shard, from, skip, bytes_max)).await?;
                let ChangesFound { sets, next, skip, edge } = found;
                Answer::Changes { sets, next, skip, edge }
            }
            // One object is looked up at once; a page can take long, and has a thread of its own.
            Query::Task(id) => {
                let now = as_of.clock.unwrap_or(as_of.stamp);
                let view = |task: &Task| TaskView { task: task.clone(), waits: state.why_waiting(task, now) };
                Answer::Task(state.task(&id).map(view).map(Box::new))
            }
            Query::Counts => Answer::Counts(state.counts()),
            Query::Place => Answer::Place {
                place: state.place().cloned(),
                first: state.first_operator(),
                serial_floor: state.serial_floor(),
            },
            Query::Site(query) => {
                let now = as_of.clock.unwrap_or(as_of.stamp);
                blocking(threads, move || Ok(Answer::Site(state.site_answer(&query, now, bytes_max)))).await?
            }
            Query::Command { command, ref after } => one_command(&state, &command, after.as_ref(), bytes_max),
            Query::CommandEnd { command, .. } => one_command(&state, &command, None, bytes_max),
            Query::Tasks { .. } | Query::Agents { .. } | Query::Commands { .. } | Query::Operators { .. } => {
                blocking(threads, move || Ok(page(&state, query, bytes_max))).await?
            }
        };
        Ok(QueryReply { as_of, answer })
    }

    async fn wait_for_history(&self, next: u64) {
        let mut progress = self.inner.parts.store.history().progress(self.inner.id);
        // This is shorter than a caller on another node waits.
        let patience = Duration::from_millis(self.inner.parts.config.rpc_timeout_ms / 2);
        let _ = tokio::time::timeout(patience, progress.wait_for(|written| *written >= next)).await;
    }
}

/// As many items as one page holds, by count and by bytes, and at least one. Returns whether there are more.
fn fill<T>(items: impl Iterator<Item = T>, limit: u32, bytes_max: u64, bytes_of: impl Fn(&T) -> u64) -> (Vec<T>, bool) {
    let count = (limit as usize).clamp(1, limits::PAGE_ITEMS_MAX);
    let (mut page, mut bytes) = (Vec::new(), 0_u64);
    for item in items {
        bytes = bytes.saturating_add(bytes_of(&item));
        if page.len() == count || (bytes > bytes_max && !page.is_empty()) {
            return (page, true);
        }
        page.push(item);
    }
    (page, false)
}

/// About how many bytes an agent takes on a page.
fn agent_bytes(agent: &AgentView) -> u64 {
    let capabilities = agent.role.capabilities.len() as u64;
    256 + (2 + capabilities) * limits::NAME_BYTES_MAX as u64
}

/// About how many bytes an operator takes on a page: each name may be one of a group.
fn operator_bytes(grant: &OperatorGrant) -> u64 {
    let names = |count: usize| count as u64 * (limits::NAME_BYTES_MAX as u64 + 8);
    512 + names(grant.verbs.names()) + names(grant.targets.names())
}

/// A page of about this many bytes.
fn page(state: &FleetState, query: Query, bytes_max: u64) -> Answer {
    match query {
        Query::Tasks { statuses, after, limit } => {
            let wanted = |status: TaskStatus| statuses.is_empty() || statuses.contains(&status);
            let wanted = state.tasks_after(after).filter(|task| wanted(task.state.status()));
            let (tasks, more) = fill(wanted, limit, bytes_max, |task| 2_048 + task.bytes());
            let next = tasks.last().map(|task| task.id).filter(|_| more);
            Answer::Tasks { tasks: tasks.into_iter().cloned().collect(), next }
        }
        Query::Agents { after, limit } => {
            let (agents, more) = fill(state.agents_after(after.as_ref()), limit, bytes_max, agent_bytes);
            let next = agents.last().map(|agent| agent.id.clone()).filter(|_| more);
            Answer::Agents { agents, next }
        }
        Query::Commands { after, limit } => {
            let bytes_of = |view: &CommandView| 2_048 + view.command.args.len() as u64;
            let (commands, more) = fill(state.commands_after(after), limit, bytes_max, bytes_of);
            let next = commands.last().map(|view| view.command.id).filter(|_| more);
            Answer::Commands { commands, next }
        }
        Query::Operators { after, limit } => {
            let (operators, more) = fill(state.operators_after(after), limit, bytes_max, |grant| operator_bytes(grant));
            let next = operators.last().map(|grant| grant.operator).filter(|_| more);
            Answer::Operators { operators: operators.into_iter().cloned().collect(), next }
        }
        Query::Task(_)
        | Query::Place
        | Query::Site(_)
        | Query::Counts
        | Query::History { .. }
        | Query::Changes { .. }
        | Query::Command { .. }
        | Query::CommandEnd { .. } => Answer::Counts(state.counts()),
    }
}

/// One command, with about this many bytes of its deliveries.
fn one_command(state: &FleetState, id: &CommandId, after: Option<&AgentId>, bytes_max: u64) -> Answer {
    let (command, next) = state.command_page(id, after, bytes_max).unzip();
    Answer::Command { command: command.map(Box::new), next: next.flatten() }
}

async fn blocking<T: Send + 'static>(
    threads: &Threads,
    read: impl FnOnce() -> Result<T, skep_store::HistoryError> + Send + 'static,
) -> Result<T, QueryFailure> {
    match threads.offload(Errand::Pages, read).await {
        Ok(result) => result.map_err(|e| QueryFailure::Storage(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(QueryFailure::Overloaded),
        Err(e) => Err(QueryFailure::Storage(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_by_count_and_by_bytes_and_holds_one_at_least() {
        // etcd-io/etcd#14809
        let page = |limit, bytes_max| fill(0..9_u64, limit, bytes_max, |_| 100);
        assert_eq!(page(4, u64::MAX), (vec![0, 1, 2, 3], true));
        assert_eq!(page(9, u64::MAX), ((0..9).collect(), false), "there are no more");
        assert_eq!(page(9, 250), (vec![0, 1], true));
        assert_eq!(page(9, 1), (vec![0], true));
        let most = fill(0..2_000_u64, u32::MAX, u64::MAX, |_| 1);
        assert_eq!((most.0.len(), most.1), (limits::PAGE_ITEMS_MAX, true));
    }

    #[test]
    fn an_operator_takes_no_more_of_a_page_than_is_reckoned() {
        let names = |kind: char| (0..64).map(move |n| format!("{kind}{n:063}"));
        let grant = OperatorGrant {
            verbs: skep_protocol::operator::Allowed::These(names('v').map(|name| name.parse().unwrap()).collect()),
            targets: skep_protocol::operator::Allowed::These(
                names('g').map(|name| skep_protocol::command::Target::Group(name.parse().unwrap())).collect(),
            ),
            until: Some(skep_protocol::time::LogInstant::from_raw(u64::MAX)),
            per_minute: Some(u32::MAX),
            serial: u64::MAX,
            ..OperatorGrant::of_first(
                skep_protocol::signing::Place {
                    site: "s".repeat(64).parse().unwrap(),
                    shard: skep_protocol::ids::ShardId(u32::MAX),
                    genesis: skep_protocol::ids::Genesis::from_bytes([1; 16]),
                },
                skep_protocol::signing::OperatorSecret::from_seed(&[1; 32]).key(),
                "n".repeat(64).parse().unwrap(),
            )
        };
        let bytes = postcard::to_stdvec(&grant).unwrap().len() as u64;
        assert!(operator_bytes(&grant) >= bytes, "{bytes}");
    }
}
