//! Which host lies in a run, and what it has in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use skep_protocol::command::SignedCommand;
use skep_protocol::ids::HomeEpoch;
use skep_protocol::operator::SignedGrant;
use skep_protocol::pull::Pull;
use skep_protocol::text::AgentId;

use super::replica::Asker;

/// What tells the draw of liars from the other draws of a seed.
pub(super) const LIARS: u64 = 0x11a2_0000_0000_0004;
/// How long it lies, and how long it behaves, in milliseconds.
const LIES_MS: std::ops::RangeInclusive<u64> = 3_000..=9_000;
const BEHAVES_MS: std::ops::RangeInclusive<u64> = 2_000..=6_000;

/// Which host lies in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Lies {
    /// No host.
    Nobody,
    /// A host that is listed and votes nowhere: a robot that was stolen.
    Robot,
    /// One of the voters.
    Voter,
}

impl fmt::Display for Lies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Robot => "robot",
            Self::Voter => "voter",
        })
    }
}

/// The host that lies in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Liar {
    pub(super) host: usize,
    pub(super) votes: bool,
    /// Whether its clocks and terms are far ahead from time to time. A host that has heard such a clock begins nothing
    /// more, which hides everything else: few runs have them.
    pub(super) wild: bool,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, votes, wild } = self;
        let votes = if *votes { "votes" } else { "votes nowhere" };
        let wild = if *wild { ", and whose clocks are far ahead now and then" } else { "" };
        write!(f, "host {host} lies, which {votes}{wild}")
    }
}

/// What identifies one question.
pub(super) type Question = (usize, u32, u64, u32);

pub(super) fn name_of(asker: Asker) -> Question {
    (asker.host, asker.run, asker.key, asker.attempt)
}

/// The liar of a run under way.
pub(super) struct Lying {
    pub(super) liar: Liar,
    pub(super) rng: SmallRng,
    /// Whether it lies at present, and when that changes.
    pub(super) lies: bool,
    turns_at_ms: u64,
    pub(super) says_at_ms: u64,
    /// All commands that operators signed.
    pub(super) signed: Vec<Arc<SignedCommand>>,
    /// The statement that granted the clerk. The liar shows it also when there is no clerk any longer.
    pub(super) grant: Option<Arc<SignedGrant>>,
    /// The home epochs of the robots' journals, as their nodes said.
    pub(super) homes: BTreeMap<AgentId, HomeEpoch>,
    /// Pulls that wait for an answer.
    pub(super) pulls: Vec<(Asker, Pull)>,
    /// The questions that had a false answer.
    pub(super) told: BTreeSet<Question>,
}

impl Lying {
    pub(super) fn new(liar: Liar, seed: u64) -> Self {
        Self {
            liar,
            rng: SmallRng::seed_from_u64(seed ^ !LIARS),
            lies: false,
            turns_at_ms: 0,
            says_at_ms: 0,
            signed: Vec::new(),
            grant: None,
            homes: BTreeMap::new(),
            pulls: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    /// Changes between lies and good behaviour, if that is due.
    pub(super) fn turn(&mut self, now: u64) {
        if self.turns_at_ms <= now {
            self.lies = self.turns_at_ms > 0 && !self.lies;
            let for_ms = if self.lies { LIES_MS } else { BEHAVES_MS };
            self.turns_at_ms = now + self.rng.random_range(for_ms);
            self.says_at_ms = now;
        }
    }
}
