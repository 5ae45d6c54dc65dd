//! Many runs, on all processors, that can be stopped and continued.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::lying::Lies;
use super::plan::Plan;
use super::shrink::shrink;
use super::watch::{Coverage, Violation};
use super::{Outcome, Scale, run_plan};

/// How many failures are examined; a campaign that meets more ends.
const FAILURES_MAX: usize = 5;
/// How many runs there are between two records of progress.
const NOTE_EVERY: u64 = 50;

/// Which runs a campaign has.
#[derive(Clone, Debug)]
pub struct CampaignOptions {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// How many robots, and hosts, and which host lies; drawn from each seed if none.
    pub scale: Scale,
    /// The path of the progress file. A campaign of the same seeds goes on from there.
    pub progress: Option<PathBuf>,
}

/// A run that violated an invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// The id of the invariant.
    pub invariant: String,
    /// What was found.
    pub what: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
    /// The faults without which it does not fail.
    pub faults: Vec<String>,
    /// The command line that runs it again.
    pub replay: String,
}

/// The result of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many robots; drawn from each seed if none.
    pub robots: Option<usize>,
    /// How many hosts; drawn from each seed if none.
    #[serde(default)]
    pub hosts: Option<usize>,
    /// Which host lies; drawn from each seed if none.
    #[serde(default)]
    pub lies: Option<Lies>,
    /// How many seeds were run.
    pub seeds: u64,
    /// Virtual time, times robots, in milliseconds.
    pub robot_ms: u64,
    /// How often each thing happened.
    pub coverage: Coverage,
    /// The things that never happened.
    pub missing: Vec<String>,
    /// The runs that violated an invariant.
    pub violations: Vec<Failure>,
}

/// Why a campaign cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The progress file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The path of the progress file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The progress file belongs to another campaign.
    #[error("{path} is of a campaign from {found}; this one is from {wanted}. Remove it, or name another file")]
    Other {
        /// The path of the progress file.
        path: PathBuf,
        /// The campaign of the file: its first seed, its robots, its hosts, and which host lies.
        found: String,
        /// The campaign that the user asked for.
        wanted: String,
    },
}

impl Campaign {
    /// Virtual time, times robots, in hours.
    pub fn robot_hours(&self) -> f64 {
        self.robot_ms as f64 / 3_600_000.0
    }

    /// Runs seeds, and tells its progress from time to time.
    ///
    /// # Errors
    /// [`CampaignError`] if its progress cannot be read or written. The campaign has what was found.
    pub fn run(options: &CampaignOptions, mut tell: impl FnMut(&Self)) -> Result<Self, CampaignError> {
        let Scale { robots, hosts, lies } = options.scale;
        let mut campaign = Self { from: options.from, robots, hosts, lies, ..Self::default() };
        if let Some(path) = &options.progress
            && let Some(known) = read(path)?
        {
            let scale = Scale { robots: known.robots, hosts: known.hosts, lies: known.lies };
            if (known.from, scale) != (options.from, options.scale) {
                let (found, wanted) = (described(known.from, scale), described(options.from, options.scale));
                return Err(CampaignError::Other { path: path.clone(), found, wanted });
            }
            campaign = known;
        }
        while campaign.seeds < options.seeds && campaign.violations.len() < FAILURES_MAX {
            let first = campaign.from + campaign.seeds;
            let count = NOTE_EVERY.min(options.seeds - campaign.seeds);
            for (seed, outcome) in batch(first, count, options.scale) {
                campaign.note(seed, outcome, options.scale);
            }
            // If the scale says how many hosts, nothing goes wrong except that leaders die; if it says which host lies,
            // no other one does.
            let drawn = hosts.is_none() && lies.is_none();
            let missing = if drawn { campaign.coverage.missing() } else { Vec::new() };
            campaign.missing = missing.into_iter().map(str::to_owned).collect();
            if let Some(path) = &options.progress {
                write(path, &campaign)?;
            }
            tell(&campaign);
        }
        Ok(campaign)
    }

    fn note(&mut self, seed: u64, outcome: Outcome, scale: Scale) {
        self.seeds += 1;
        self.robot_ms += outcome.robots as u64 * outcome.virtual_ms;
        self.coverage.add(&outcome.coverage);
        if let Some(violation) = outcome.violation.filter(|_| self.violations.len() < FAILURES_MAX) {
            self.violations.push(failure(seed, &violation, scale));
        }
    }

    /// Whether nothing was found and everything happened at least once.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.missing.is_empty()
    }
}

fn failure(seed: u64, violation: &Violation, scale: Scale) -> Failure {
    let plan = Plan::of(seed, scale);
    let kept = shrink(&plan, violation.invariant);
    let faults = kept.iter().filter_map(|at| plan.faults.get(*at)).map(ToString::to_string).collect();
    let numbers: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let flag = |name: &str, count: Option<usize>| count.map(|n| format!(" --{name} {n}")).unwrap_or_default();
    let lies = scale.lies.map(|lies| format!(" --lies {lies}")).unwrap_or_default();
    let scale = flag("robots", scale.robots) + &flag("hosts", scale.hosts) + &lies;
    let faulty = if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") };
    Failure {
        seed,
        invariant: violation.invariant.to_owned(),
        what: violation.what.clone(),
        at_ms: violation.at_ms,
        faults,
        replay: format!("cargo run -p skep-tests --release --bin sim -- --seed {seed}{scale} --faults {faulty}"),
    }
}

/// Runs some seeds on all processors; returns their outcomes in the order of the seeds.
fn batch(first: u64, count: u64, scale: Scale) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(first);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = run_plan(&Plan::of(seed, scale));
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((seed, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(seed, _)| *seed);
    done
}

fn described(from: u64, scale: Scale) -> String {
    let counted = |what: &str, count: Option<usize>| match count {
        Some(count) => format!("{count} {what}"),
        None => format!("as many {what} as each seed says"),
    };
    let lies = scale.lies.map(|lies| format!(" ({lies} lies)")).unwrap_or_default();
    format!("seed {from} with {} and {}{lies}", counted("robots", scale.robots), counted("hosts", scale.hosts))
}

fn read(path: &Path) -> Result<Option<Campaign>, CampaignError> {
    let io = |source| CampaignError::Io { path: path.to_owned(), source };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| io(e.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

fn write(path: &Path, campaign: &Campaign) -> Result<(), CampaignError> {
    let io = |source| CampaignError::Io { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(campaign).map_err(|e| io(e.into()))?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes).map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
}
