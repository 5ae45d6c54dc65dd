//! How `skep bench endure` prints its report.

use serde::Serialize;
use skep_testnet::bench::{EndureNode, EndureReport, Growth};

use super::view::machine;
use crate::cli::Failure;
use crate::cli::output::{Format, Row, one, rows};

/// A sample of a node.
#[derive(Serialize)]
struct SampleRow {
    node: String,
    at_s: f64,
    rss_mib: f64,
    cpu_pct: f64,
    descriptors: u64,
    wal_mib: f64,
    history_mib: f64,
    journals_mib: f64,
    snapshots_mib: f64,
    written_mib: f64,
    agents: u64,
    request_ids: u64,
}

impl Row for SampleRow {
    const COLUMNS: &'static [&'static str] = &[
        "node",
        "at s",
        "rss MiB",
        "cpu %",
        "open",
        "wal MiB",
        "history MiB",
        "journals MiB",
        "snapshots MiB",
        "written MiB",
        "agents",
        "ids",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.node.clone()];
        cells.extend([self.at_s, self.rss_mib, self.cpu_pct].map(|value| format!("{value:.1}")));
        cells.push(self.descriptors.to_string());
        let on_disk = [self.wal_mib, self.history_mib, self.journals_mib, self.snapshots_mib, self.written_mib];
        cells.extend(on_disk.map(|value| format!("{value:.1}")));
        cells.extend([self.agents, self.request_ids].map(|value| value.to_string()));
        cells
    }
}

/// The samples of a node. All curves have a value for each.
fn samples(node: &EndureNode) -> impl Iterator<Item = SampleRow> {
    let curves = &node.curves;
    let value = |curve: &[f64], nth: usize| curve.get(nth).copied().unwrap_or_default();
    let whole = |curve: &[u64], nth: usize| curve.get(nth).copied().unwrap_or_default();
    curves.at_s.iter().enumerate().map(move |(nth, at_s)| SampleRow {
        node: node.node.clone(),
        at_s: *at_s,
        rss_mib: value(&curves.rss_mib, nth),
        cpu_pct: value(&curves.cpu_pct, nth),
        descriptors: whole(&curves.descriptors, nth),
        wal_mib: value(&curves.wal_mib, nth),
        history_mib: value(&curves.history_mib, nth),
        journals_mib: value(&curves.journals_mib, nth),
        snapshots_mib: value(&curves.snapshots_mib, nth),
        written_mib: value(&curves.written_mib, nth),
        agents: whole(&curves.agents, nth),
        request_ids: whole(&curves.request_ids, nth),
    })
}

fn growth(of: &Growth) -> String {
    let parts = [
        ("RSS", of.rss),
        ("open", of.descriptors),
        ("wal", of.wal),
        ("history", of.history),
        ("journals", of.journals),
        ("snapshots", of.snapshots),
    ];
    let known = parts.iter().filter_map(|(name, times)| times.map(|times| format!("{name} {times} times")));
    known.collect::<Vec<_>>().join(", ")
}

/// Prints the report: for people with a line for each sample.
pub(super) fn print(format: Format, report: &EndureReport) -> Result<(), Failure> {
    let mut lines = vec![
        ("voters", report.voters.to_string()),
        (
            "load",
            format!(
                "{:.0} s, {} rounds/s of {} asked for, {} robots",
                report.seconds, report.rounds_per_s, report.rate, report.robots
            ),
        ),
        ("tasks", format!("{} created, {} completed", report.created, report.completed)),
        ("commands", format!("{} accepted, {} succeeded", report.commands, report.succeeded)),
        ("agents", format!("{} came and went", report.visits)),
        ("errors", format!("{} not done, {} unknown", report.not_done, report.unknown)),
    ];
    for node in &report.nodes {
        let restart = node.restart;
        lines.push(("node", format!("{} {}", node.node, node.role)));
        lines.push(("· of the first", growth(&node.last_to_first)));
        lines.push(("· of the middle", growth(&node.last_to_half)));
        let drained = if restart.drained { "drained" } else { "had to be killed" };
        lines.push((
            "· restart",
            format!(
                "{drained} in {} ms; takes connections after {} ms, serves after {} ms, with {} MiB and {} open",
                restart.stopped_ms, restart.listens_ms, restart.serves_ms, restart.rss_mib, restart.descriptors
            ),
        ));
    }
    lines.push(("machine", machine(&report.machine)));
    one(format, report, &lines)?;
    if format == Format::Table {
        let all: Vec<SampleRow> = report.nodes.iter().flat_map(samples).collect();
        rows(format, &all)?;
    }
    Ok(())
}
