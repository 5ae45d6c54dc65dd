//! What is shown of tasks.

use serde::Serialize;
use skep_client::v1::{self, Priority};
use skep_client::{Client, Code, Read, TaskStatus};

use super::Status;
use crate::cli::Failure;
use crate::cli::as_of::{AsOf, PAGE, Pages};
use crate::cli::follow::follow;
use crate::cli::output::{ANOTHER_ERA, Format, Row, age, between, json_line, one, print, span, tell, uuid_text};

/// A status in words.
pub(super) fn status_text(status: i32) -> &'static str {
    match TaskStatus::try_from(status) {
        Ok(TaskStatus::Pending) => "pending",
        Ok(TaskStatus::Claimed) => "claimed",
        Ok(TaskStatus::Completed) => "completed",
        Ok(TaskStatus::DeadLettered) => "dead-lettered",
        Ok(TaskStatus::Cancelled) => "cancelled",
        Ok(TaskStatus::Expired) => "expired",
        Ok(TaskStatus::Unspecified) | Err(_) => "unknown",
    }
}

fn priority_text(priority: i32) -> &'static str {
    match Priority::try_from(priority) {
        Ok(Priority::Low) => "low",
        Ok(Priority::High) => "high",
        Ok(Priority::Urgent) => "urgent",
        Ok(Priority::Normal | Priority::Unspecified) | Err(_) => "normal",
    }
}

#[derive(Serialize)]
struct View {
    task: String,
    title: String,
    #[serde(rename = "type")]
    kind: String,
    status: &'static str,
    priority: &'static str,
    required: Vec<String>,
    payload: String,
    claimed_by: String,
    claimed_at: u64,
    epoch: u64,
    attempts: u32,
    attempts_max: u32,
    created_at: u64,
    updated_at: u64,
    ended_at: u64,
    expires_at: u64,
    not_before: u64,
    stale_at: u64,
    permille: Option<u32>,
    note: String,
    reason: String,
    result: String,
    checkpoint: String,
    /// Why it waits, if it does.
    waits: String,
    kept_for: String,
    kept_until: u64,
    /// The shard's clock when this was answered.
    clock: u64,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["task", "status", "priority", "title", "claimed by", "attempt", "changed"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.task.clone(),
            self.status.to_owned(),
            self.priority.to_owned(),
            self.title.clone(),
            self.claimed_by.clone(),
            format!("{}/{}", self.attempts, self.attempts_max),
            age(self.updated_at, self.clock),
        ]
    }
}

#[derive(Serialize)]
struct Event {
    index: u64,
    term: u64,
    clock: u64,
    feed: String,
    task: String,
    kind: String,
    agent: String,
    epoch: u64,
    attempt: u32,
    detail: String,
    permille: u32,
    not_before: u64,
    request: String,
}

#[derive(Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<View>,
    history: Vec<Event>,
    /// Whether the replica lacks some transitions, and fetches them.
    history_incomplete: bool,
    /// The first entry whose changes are kept: earlier transitions are gone.
    history_begins_index: u64,
    as_of: AsOf,
}

fn view(task: v1::Task, clock: u64) -> View {
    let spec = task.spec.unwrap_or_default();
    View {
        task: uuid_text(&task.id),
        title: spec.title,
        kind: spec.r#type,
        status: status_text(task.status),
        priority: priority_text(spec.priority),
        required: spec.required_capabilities,
        payload: String::from_utf8_lossy(&spec.payload).into_owned(),
        claimed_by: task.claimed_by,
        claimed_at: task.claimed_at,
        epoch: task.epoch,
        attempts: task.attempts,
        attempts_max: spec.retry.and_then(|retry| retry.attempts_max).unwrap_or_default(),
        created_at: task.created_at,
        updated_at: task.updated_at,
        ended_at: task.ended_at,
        expires_at: task.expires_at,
        not_before: task.not_before,
        stale_at: task.stale_at,
        permille: task.progress.as_ref().map(|progress| progress.permille),
        note: task.progress.map(|progress| progress.note).unwrap_or_default(),
        reason: task.reason,
        result: String::from_utf8_lossy(&task.result).into_owned(),
        checkpoint: String::from_utf8_lossy(&task.checkpoint).into_owned(),
        waits: task.waits,
        kept_for: task.kept_for,
        kept_until: task.kept_until,
        clock,
    }
}

fn event(event: v1::TaskEvent) -> Event {
    Event {
        index: event.index,
        term: event.term,
        clock: event.clock,
        feed: event.feed,
        task: uuid_text(&event.task_id),
        kind: event.kind,
        agent: event.agent,
        epoch: event.epoch,
        attempt: event.attempt,
        detail: event.detail,
        permille: event.permille,
        not_before: event.not_before,
        request: uuid_text(&event.request_id),
    }
}

pub(super) fn read(stale: bool) -> Read {
    if stale { Read::Stale } else { Read::Linearizable }
}

/// Prints tasks.
pub(super) async fn list(
    client: &Client,
    format: Format,
    statuses: &[Status],
    limit: usize,
    read: Read,
) -> Result<(), Failure> {
    let statuses: Vec<TaskStatus> = statuses.iter().map(|status| (*status).into()).collect();
    let mut pages = Pages::new();
    let mut after = Vec::new();
    loop {
        let page = u32::try_from(limit - pages.len()).unwrap_or(u32::MAX).min(PAGE);
        let reply = client.tasks(&statuses, &after, page, read).await?;
        let clock = reply.as_of.as_ref().map_or(0, |as_of| as_of.clock);
        pages.add(reply.as_of, reply.tasks.into_iter().map(|task| view(task, clock)));
        after = reply.next;
        if after.is_empty() || pages.len() >= limit {
            return pages.print(format, "tasks");
        }
    }
}

/// Prints one task and its life.
pub(super) async fn show(client: &Client, format: Format, task: &[u8], read: Read) -> Result<(), Failure> {
    let live = match client.task(task, read).await {
        Ok(reply) => Some(reply),
        // It may have ended long ago: its history stays.
        Err(error) if error.code() == Some(Code::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let mut shown = life(client, task, read).await?;
    if live.is_none() && shown.history.is_empty() {
        return Err(Failure::not_found(format!("there is no task {}", uuid_text(task))));
    }
    let clock = shown.as_of.clock;
    shown.task = live.and_then(|reply| reply.task).map(|task| view(task, clock));
    shown.print(format)
}

/// The life of a task, without the task.
async fn life(client: &Client, task: &[u8], read: Read) -> Result<Shown, Failure> {
    let (mut history, mut after, mut history_incomplete): (Vec<Event>, u64, bool) = (Vec::new(), 0, false);
    loop {
        let page = client.history(task, after, PAGE, read).await?;
        history.extend(page.events.into_iter().map(event));
        after = history.last().map_or(0, |event| event.index);
        history_incomplete |= page.incomplete;
        if !page.more {
            let (as_of, history_begins_index) = (AsOf::from(page.as_of), page.begins_index);
            return Ok(Shown { task: None, history, history_incomplete, history_begins_index, as_of });
        }
    }
}

impl Shown {
    fn print(&self, format: Format) -> Result<(), Failure> {
        if self.history_incomplete && format == Format::Table {
            tell("the replica that answered lacks some transitions and fetches them; ask again for all");
        }
        let lines = self.task.as_ref().map(View::lines).unwrap_or_default();
        one(format, self, &lines)?;
        if format == Format::Table {
            print("")?;
            let start = self.history.first().map_or(0, |event| event.clock);
            self.history.iter().try_for_each(|event| print(&timeline(event, start)))?;
            self.as_of.say(format);
        }
        Ok(())
    }
}

impl View {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let clock = self.clock;
        vec![
            ("task", self.task.clone()),
            ("title", self.title.clone()),
            ("type", self.kind.clone()),
            ("status", self.status.to_owned()),
            ("priority", self.priority.to_owned()),
            ("requires", self.required.join(", ")),
            ("claimed by", self.claimed_by.clone()),
            ("attempt", format!("{} of {}, epoch {}", self.attempts, self.attempts_max, self.epoch)),
            ("waits", self.waits.clone()),
            ("progress", self.permille.map(|p| format!("{} % {}", p / 10, self.note)).unwrap_or_default()),
            ("next attempt", if self.not_before > clock { age(self.not_before, clock) } else { String::new() }),
            ("stale", age(self.stale_at, clock)),
            ("expires", age(self.expires_at, clock)),
            ("reason", self.reason.clone()),
            ("checkpoint", self.checkpoint.clone()),
            ("result", self.result.clone()),
        ]
    }
}

/// One line of a timeline.
fn timeline(event: &Event, start: u64) -> String {
    let after = between(start, event.clock).map_or(ANOTHER_ERA.to_owned(), |ms| format!("+{}", span(ms)));
    let mut line = format!("{after:>12}  {:13}", event.kind);
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            line.push_str(&format!(" {name} {value}"));
        }
    };
    add("by", event.agent.clone());
    add("epoch", if event.epoch > 0 { event.epoch.to_string() } else { String::new() });
    add("attempt", if event.attempt > 0 { event.attempt.to_string() } else { String::new() });
    add("at", if event.kind == "progressed" { format!("{} %", event.permille / 10) } else { String::new() });
    add("because", event.detail.clone());
    let waits = between(event.clock, event.not_before).unwrap_or(0);
    add("again in", if waits > 0 { span(waits) } else { String::new() });
    add("· index", event.index.to_string());
    add("term", event.term.to_string());
    line
}

/// Prints transitions as they happen.
pub(super) async fn watch(client: &Client, format: Format, feeds: &[String], from: Option<u64>) -> Result<(), Failure> {
    let feeds: Vec<&str> = feeds.iter().map(String::as_str).collect();
    let print_one = |reply| {
        let event = event(reply);
        match format {
            Format::Table => print(&format!("{} {}", event.task, timeline(&event, event.clock))),
            Format::Json | Format::Jsonl => json_line(&event),
        }
    };
    let open = async |from| client.watch_tasks(&feeds, Some(from)).await;
    follow(client, from, open, |event| event.index, print_one).await
}
