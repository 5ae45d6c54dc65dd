//! How the command line shows benchmarks.

use skep_testnet::Machine;
use skep_testnet::bench::{
    BroadcastReport, CommandReport, CommitReport, FailoverReport, LatencyMs, LinksReport, Spread,
};

use crate::cli::Failure;
use crate::cli::output::{Format, one};

fn latency(of: LatencyMs) -> String {
    format!("p50 {} ms, p99 {} ms, max {} ms", of.p50, of.p99, of.max)
}

pub(super) fn machine(of: &Machine) -> String {
    format!("{} cores, {}, Linux {}, {}", of.cores, of.cpu, of.kernel, of.build)
}

pub(super) fn print_command(format: Format, report: &CommandReport) -> Result<(), Failure> {
    let steps = report.steps_ms;
    let outcomes: Vec<String> = report.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let lines = [
        ("robots", format!("{}, {} commands under way at a time", report.robots, report.inflight)),
        ("round trips/s", format!("{:.0}", report.round_trips_per_s)),
        ("round trip", latency(report.latency_ms)),
        ("accepted", latency(steps.accept)),
        ("· offered", latency(steps.offer)),
        ("· started", latency(steps.start)),
        ("· recorded", latency(steps.record)),
        ("· reported", latency(steps.report)),
        ("outcomes", outcomes.join(", ")),
        ("verdict", format!("{} errors, {} started twice", report.errors, report.duplicates)),
        ("machine", machine(&report.machine)),
    ];
    one(format, report, &lines)?;
    let sound = report.errors == 0 && report.duplicates == 0 && report.outcomes.keys().all(|of| of == "succeeded");
    if sound { Ok(()) } else { Err(Failure::failed("not every command succeeded exactly once")) }
}

pub(super) fn print_broadcast(format: Format, report: &BroadcastReport) -> Result<(), Failure> {
    let slow = format!("{}: {} % at p99", latency(report.delivery_with_slow_ms), report.slow_robot_delay_pct);
    let lines = [
        ("robots", format!("{}, {} of them stand still in every other round", report.robots, report.slow)),
        ("accepted", latency(report.accept_ms)),
        ("last delivery", latency(report.last_delivery_ms)),
        ("last start", latency(report.last_start_ms)),
        ("the others", latency(report.delivery_ms)),
        ("with slow ones", slow),
        ("machine", machine(&report.machine)),
    ];
    one(format, report, &lines)
}

pub(super) fn print_links(format: Format, report: &LinksReport) -> Result<(), Failure> {
    let mut lines =
        vec![("voters", format!("{}, preset {}", report.voters, report.preset)), ("seed", report.seed.to_string())];
    for link in &report.links {
        let failure = link.failure.as_ref().map(|failure| format!("; {failure}")).unwrap_or_default();
        lines.push((
            "link",
            format!(
                "{} ms one way: {} of {} done, p50 {} ms, max {} ms, {} elections{failure}",
                link.one_way_ms, link.done, report.writes, link.latency_ms.p50, link.latency_ms.max, link.elections
            ),
        ));
    }
    lines.push(("machine", machine(&report.machine)));
    one(format, report, &lines)?;
    let all = report.all_done();
    if all { Ok(()) } else { Err(Failure::failed("not every write was done; the nodes' directories are kept")) }
}

pub(super) fn print_commit(format: Format, report: &CommitReport) -> Result<(), Failure> {
    let mut lines = vec![
        (
            "clients",
            format!(
                "{} on {} connections ({}, {})",
                report.clients, report.connections, report.transport, report.calls
            ),
        ),
        ("writes/s", format!("{:.0}", report.writes_per_s)),
        ("latency", latency(report.latency_ms)),
        ("errors", format!("{} not done, {} unknown", report.errors, report.unknown)),
        ("verified", format!("{} of {} acknowledged", report.verified, report.acknowledged)),
    ];
    lines.push(("written", format!("{} bytes per payload byte", report.written_bytes_per_payload_byte)));
    for node in &report.nodes {
        lines.push((
            "node",
            format!(
                "{} {}: RSS {} MiB idle, {} loaded; CPU {} % idle, {} % loaded; {} bytes written per committed byte, \
                 {} of them in the log",
                node.node,
                node.role,
                node.rss_idle_mib,
                node.rss_loaded_mib,
                node.cpu_idle_pct,
                node.cpu_loaded_pct,
                node.written_per_committed_byte,
                node.log_per_committed_byte
            ),
        ));
    }
    lines.push(("machine", machine(&report.machine)));
    one(format, report, &lines)?;
    all_there(report.verified, report.acknowledged)
}

pub(super) fn print_failover(format: Format, report: &FailoverReport) -> Result<(), Failure> {
    let spread = |of: Spread| format!("min {} ms, median {} ms, max {} ms", of.min, of.median, of.max);
    let of_others = |of: Option<Spread>| of.map_or("none asked".to_owned(), spread);
    let lines = [
        ("failover", spread(report.failover_ms)),
        ("· first other", of_others(report.others_first_ms)),
        ("· last other", of_others(report.others_last_ms)),
        ("verified", format!("{} of {} acknowledged", report.verified, report.acknowledged)),
        ("machine", machine(&report.machine)),
    ];
    one(format, report, &lines)?;
    all_there(report.verified, report.acknowledged)
}

/// Checks that every acknowledged write was found on every voter.
fn all_there(verified: usize, acknowledged: usize) -> Result<(), Failure> {
    if verified == acknowledged {
        return Ok(());
    }
    Err(Failure::failed("acknowledged writes are missing; the nodes' directories are kept"))
}
