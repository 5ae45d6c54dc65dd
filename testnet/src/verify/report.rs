//! The result of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Evidence, Violation, at_most_once, lost, self_fencing};
use crate::record::{ChangeRecord, ClientRecord, Op, StoryRecord};
use crate::site::station::{Effect, Refused, Step};

/// The result of a run. Everything in it is computed from the run's records.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The counts of orders.
    pub tasks: Tasks,
    /// What happened in the world.
    pub effects: Effects,
    /// From the SIGKILL of each leader to a successor that answers, in milliseconds.
    pub failovers_ms: Vec<u64>,
    /// How many claims were taken back because the lease of their holder ended.
    pub reassigned: usize,
    /// Completed orders a second, from the first creation to the last completion on the shard's clock.
    pub throughput_per_s: f64,
    /// How long orders took, on the shard's clock.
    pub latency_ms: Latency,
    /// What a flood of telemetry did; none if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood: Option<Flooded>,
    /// How many nodes.
    pub nodes: usize,
    /// How many robots.
    pub robots: usize,
    /// The seed of random choices.
    pub seed: u64,
    /// The name of the workload.
    pub workload: String,
    /// Why each duplicate was refused: the robot whose work it would have repeated.
    pub explained: Vec<Explained>,
    /// What must never happen, and whether it did.
    pub invariants: Invariants,
    /// Whether every order was completed and every invariant held.
    pub ok: bool,
}

/// The counts of orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// How many were acknowledged.
    pub created: usize,
    /// How many were completed.
    pub completed: usize,
    /// How many became dead letters.
    pub dead_lettered: usize,
    /// How many were acknowledged and have not ended.
    pub lost: usize,
}

/// What happened in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// How many errands were begun.
    pub starts: usize,
    /// How many errands were begun that must not have been.
    pub duplicates: usize,
    /// How many effects had a claim below one seen before, or came after the end of its lease.
    pub stale: usize,
    /// The effects that the station refused.
    pub refused: Refusals,
}

/// The effects that the station refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// How many had a claim below one seen before: its holder did not stop by itself.
    pub stale: usize,
    /// How many were of an errand that was done: its report was lost with a node.
    pub duplicate: usize,
}

/// How long orders take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// From creation to the first claim.
    pub claim: Quantiles,
    /// From creation to completion.
    pub complete: Quantiles,
}

/// Quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half of the values are at most this.
    pub p50: u64,
    /// 99 of 100 values are at most this.
    pub p99: u64,
}

/// What a flood of telemetry did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flooded {
    /// How many publications were handed to nodes.
    pub publications: u64,
    /// How often a node had no room for one, sent or received.
    pub dropped: u64,
    /// The rate that was asked for, in publications a second.
    pub per_s: f64,
    /// How many elections there were meanwhile.
    pub elections: u64,
    /// From creation to the first claim, of orders created during the flood.
    pub claim_with_ms: Quantiles,
    /// From creation to the first claim, of all other orders.
    pub claim_without_ms: Quantiles,
}

/// Why a duplicate was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The task's id.
    pub task: String,
    /// The number of the errand.
    pub errand: u32,
    /// The robot that was refused.
    pub refused: String,
    /// The robot that had done it.
    pub done_by: String,
    /// Why the refused robot did not know of that.
    pub because: String,
}

/// What must never happen, and whether it did.
#[derive(Clone, Debug, Serialize)]
pub struct Invariants {
    /// The invariants that were checked.
    pub checked: Vec<&'static str>,
    /// What the checks found.
    pub violations: Vec<Violation>,
}

fn quantiles(mut values: Vec<u64>) -> Quantiles {
    values.sort_unstable();
    let at = |share: f64| {
        let rank = (values.len() as f64 * share).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    };
    Quantiles { p50: at(0.5), p99: at(0.99) }
}

/// The first transition of a kind, by task.
fn firsts<'a>(changes: &'a [ChangeRecord], kind: &str) -> BTreeMap<&'a str, u64> {
    let mut firsts = BTreeMap::new();
    for change in changes.iter().filter(|change| change.change == kind) {
        firsts.entry(change.task.as_str()).or_insert(change.clock);
    }
    firsts
}

impl Report {
    /// Makes the report of a run.
    pub(super) fn of(evidence: &Evidence, checked: Vec<&'static str>, violations: Vec<Violation>) -> Self {
        let changes = evidence.changes();
        let count = |kind: &str| changes.iter().filter(|change| change.change == kind).count();
        let (created, claimed) = (firsts(changes, "created"), firsts(changes, "claimed"));
        let completed = firsts(changes, "completed");
        let since = |ends: &BTreeMap<&str, u64>| {
            let took = ends.iter().filter_map(|(task, end)| Some(end.saturating_sub(*created.get(task)?)));
            quantiles(took.collect())
        };
        let latency_ms = Latency { claim: since(&claimed), complete: since(&completed) };
        let span_ms = match (created.values().min(), completed.values().max()) {
            (Some(first), Some(last)) if last > first => last - first,
            _ => 0,
        };
        let per_s = if span_ms > 0 { completed.len() as f64 * 1_000.0 / span_ms as f64 } else { 0.0 };
        let (mut nodes, mut robots, mut seed, mut workload) = (0, 0, 0, String::new());
        let mut failovers_ms = Vec::new();
        for record in &evidence.story {
            match record {
                StoryRecord::Begun { nodes: n, robots: r, seed: s, workload: w, .. } => {
                    (nodes, robots, seed, workload) = (*n, *r, *s, w.clone());
                }
                StoryRecord::Elected { after_ms, .. } => failovers_ms.push(*after_ms),
                _ => {}
            }
        }
        let tasks = Tasks {
            created: evidence.acknowledged().filter(|(call, _)| call.op == Op::Create).count(),
            completed: completed.len(),
            dead_lettered: count("dead-lettered"),
            lost: lost::lost(evidence).len(),
        };
        let reclaims = changes.iter().filter(|change| change.change == "reclaimed" && change.detail.contains("lease"));
        let explained = explain(evidence);
        let ok = violations.is_empty()
            && tasks.completed == tasks.created
            && tasks.lost == 0
            && tasks.dead_lettered == 0
            && explained.iter().all(|duplicate| duplicate.because != UNEXPLAINED);
        Self {
            tasks,
            effects: effects(evidence),
            failovers_ms,
            reassigned: reclaims.count(),
            throughput_per_s: (per_s * 100.0).round() / 100.0,
            latency_ms,
            flood: flood(evidence, &created, &claimed),
            nodes,
            robots,
            seed,
            workload,
            explained,
            invariants: Invariants { checked, violations },
            ok,
        }
    }
}

fn flood(evidence: &Evidence, created: &BTreeMap<&str, u64>, claimed: &BTreeMap<&str, u64>) -> Option<Flooded> {
    let begun = evidence.story.iter().find_map(|record| match record {
        StoryRecord::FloodBegun { clock, term, per_s, .. } => Some((*clock, *term, *per_s)),
        _ => None,
    });
    let ended = evidence.story.iter().find_map(|record| match record {
        StoryRecord::FloodEnded { clock, term, sent, dropped, .. } => Some((*clock, *term, *sent, *dropped)),
        _ => None,
    });
    let ((from, first_term, per_s), (to, last_term, publications, dropped)) = (begun?, ended?);
    let took = |during: bool| {
        let of = created.iter().filter(|(_, at)| (from..to).contains(*at) == during);
        quantiles(of.filter_map(|(task, at)| Some(claimed.get(task)?.saturating_sub(*at))).collect())
    };
    Some(Flooded {
        publications,
        dropped,
        per_s,
        elections: last_term.saturating_sub(first_term),
        claim_with_ms: took(true),
        claim_without_ms: took(false),
    })
}

/// How many accepted effects had a claim below one seen before, or came after the end of its lease.
fn stale(evidence: &Evidence) -> usize {
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut found = 0;
    for effect in evidence.effects.iter().filter(|effect| effect.refused.is_none()) {
        let q = &effect.question;
        let seen = highest.entry(&q.task).or_default();
        let late =
            self_fencing::is_late(evidence, effect) && !evidence.was_paused(&q.run_name(), q.checked_ms, effect.at_ns);
        found += usize::from(q.epoch < *seen || late);
        *seen = (*seen).max(q.epoch);
    }
    found
}

fn effects(evidence: &Evidence) -> Effects {
    let refused = |why: Refused| evidence.effects.iter().filter(|effect| effect.refused == Some(why)).count();
    let start = |effect: &&Effect| effect.refused.is_none() && effect.question.step == Step::Start;
    Effects {
        starts: evidence.effects.iter().filter(start).count(),
        duplicates: at_most_once::duplicates(&evidence.effects).len(),
        stale: stale(evidence),
        refused: Refusals { stale: refused(Refused::Stale), duplicate: refused(Refused::Duplicate) },
    }
}

/// The reason of a duplicate for which there is none: the run is not ok.
const UNEXPLAINED: &str = "its report was never answered, and nothing was done to its node or to it";

/// The robot whose work each refused duplicate would have repeated, and why its own robot did not know of that.
fn explain(evidence: &Evidence) -> Vec<Explained> {
    let duplicates = evidence.effects.iter().filter(|effect| effect.refused == Some(Refused::Duplicate));
    let explained = duplicates.map(|effect| {
        let (task, errand) = (effect.question.task.clone(), effect.question.errand);
        let same = |e: &&Effect| e.question.task == task && e.question.errand == errand;
        let done = evidence.effects.iter().filter(same).find(|e| e.refused.is_none() && e.question.step == Step::Done);
        let by = done.map(|done| &done.question);
        let told = by.and_then(|by| {
            let history = evidence.clients.get(&by.run_name())?;
            history.iter().rev().find_map(|record| match record {
                ClientRecord::Ok { call, .. }
                | ClientRecord::Fail { call, .. }
                | ClientRecord::Unknown { call, .. }
                    if call.op == Op::Progress
                        && (call.task.as_str(), call.epoch, call.errands) == (task.as_str(), by.epoch, errand + 1) =>
                {
                    Some(match record {
                        ClientRecord::Ok { .. } => "its report was committed".to_owned(),
                        ClientRecord::Fail { why, .. } => format!("its report was refused: {why}"),
                        _ => "the outcome of its report is unknown".to_owned(),
                    })
                }
                _ => None,
            })
        });
        let silent = match by.is_some_and(|by| evidence.was_felled(&by.run_name())) {
            true => "its report was never answered: its node, or it, was killed",
            false => UNEXPLAINED,
        };
        let because = told.unwrap_or_else(|| silent.to_owned());
        let done_by = by.map_or("no robot".to_owned(), |by| format!("{} under epoch {}", by.run_name(), by.epoch));
        let refused = format!("{} under epoch {}", effect.question.run_name(), effect.question.epoch);
        Explained { task, errand, refused, done_by, because }
    });
    explained.collect()
}
