//! The simulator: whole sites in virtual time, from a seed.
//!
//! Nodes are the product's own engines; the leader runs the product's own orchestrator; replicas apply entries with the
//! product's own state machine and restore it from its own snapshots; robots are fenced by the client library's own
//! holdings. What is modelled is what lies between: a log that a majority holds, a network that loses, doubles, delays
//! and cuts, clocks that run wrong and begin anew, processes that end or are suspended, robots and customers.
//!
//! Every run is one thread and one seed. Safety is looked at with everything that happens; then all faults end, and
//! everything must come to its end.
//!
//! In some runs one host lies. What it says of itself is nobody's concern; what the others do must be right all the same.
//!
//! At the bottom are names (`names`, `clerk`), the plan of a run (`plan`) and what is under way in it (`parcel`). Above
//! them are the ports (`ports`): time, chance, the network, and those who only watch (`watch`). Robots (`robot`),
//! customers (`customer`) and nodes (`nodes`, `shell`, `lead`, `liar` and others) act through the ports, and do not
//! know each other. On top, `world` owns them all, tells each what happens to it, and breaks what the plan says.
//!
//! A [`Month`] is another sort of run: nothing goes wrong in it, and it goes on for weeks of virtual time, in which nothing
//! may grow.

mod calls;
mod campaign;
mod clerk;
mod clock;
mod commands;
mod customer;
mod disks;
mod elect;
mod errands;
mod fabric;
mod faults;
mod hands;
mod host;
mod hosts;
mod journal;
mod lead;
mod liar;
mod lies;
mod lying;
mod machine;
mod many;
mod month;
mod moves;
mod names;
mod nodes;
mod parcel;
mod plan;
mod ports;
mod pulls;
mod replica;
mod robot;
mod rounds;
mod shell;
mod shrink;
mod watch;
mod world;

pub use campaign::{Campaign, CampaignError, CampaignOptions, Failure};
pub use lying::Lies;
pub use month::{Growth, Month, MonthOptions, SETTLED_DAY, Sample};
pub use watch::{Coverage, Violation};

use plan::Plan;
use world::Sim;

/// How large a run is, and who lies in it, where its seed is not to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// How many robots.
    pub robots: Option<usize>,
    /// How many hosts. The runs of a site whose hosts are counted are others: few of them vote, the leader is killed again
    /// and again, and nothing else goes wrong.
    pub hosts: Option<usize>,
    /// Which host lies. No host lies where the number of hosts is given, unless this names one.
    pub lies: Option<Lies>,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must never happen, and did.
    pub violation: Option<Violation>,
    /// What was met.
    pub coverage: Coverage,
    /// How many robots.
    pub robots: usize,
    /// How long it took, in virtual milliseconds.
    pub virtual_ms: u64,
}

/// Runs a plan to its end. A panic of the product is a violation too.
fn run_plan(plan: &Plan) -> Outcome {
    let robots = plan.robots;
    let ran = std::panic::catch_unwind(|| Sim::new(plan.clone()).run());
    match ran {
        Ok(watch) => {
            Outcome { violation: watch.violation, coverage: watch.coverage, robots, virtual_ms: watch.virtual_ms }
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let what = text.unwrap_or_else(|| "it panicked".to_owned());
            let violation = Some(Violation { invariant: "S15", what, at_ms: 0 });
            Outcome { violation, coverage: Coverage::default(), robots, virtual_ms: 0 }
        }
    }
}

/// Runs a seed to its end. `scale` overrides how many there are of what; `faults` keeps only some of the seed's faults.
pub fn run(seed: u64, scale: Scale, faults: Option<&[usize]>) -> Outcome {
    let plan = Plan::of(seed, scale);
    run_plan(&faults.map_or(plan.clone(), |kept| plan.with_faults(kept)))
}

/// What the site of a seed is like.
pub fn site_of(seed: u64, scale: Scale) -> String {
    Plan::of(seed, scale).to_string()
}

/// What goes wrong in the run of a seed, line by line.
pub fn faults_of(seed: u64, scale: Scale) -> Vec<String> {
    Plan::of(seed, scale).faults.iter().enumerate().map(|(at, fault)| format!("{at}: {fault}")).collect()
}
