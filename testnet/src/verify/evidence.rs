//! The records of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::VerifyError;
use crate::record::{
    ChangeRecord, ClientRecord, HeadRecord, NodeRecord, RecordError, StoryRecord, VoterRecord, is_run_of, read,
};
use crate::site::crew::is_deed;
use crate::site::station::Effect;

/// Everything that a run recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// What was done to the testnet.
    pub story: Vec<StoryRecord>,
    /// The effects of tasks that robots asked for, in the order of the world.
    pub effects: Vec<Effect>,
    /// The effects of commands that robots asked for, in the order of the world.
    pub deeds: Vec<Effect>,
    /// What each client did and heard, by the name of its history.
    pub clients: BTreeMap<String, Vec<ClientRecord>>,
    /// What every voter holds.
    pub voters: Vec<VoterRecord>,
    /// What each node saw of itself, by its name.
    pub nodes: BTreeMap<String, Vec<NodeRecord>>,
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, VerifyError> {
    let io = |source| RecordError::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        files.push(entry.map_err(io)?.path());
    }
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().split('.').next().unwrap_or_default().to_owned()
}

impl Evidence {
    /// Reads what a demo has left in its directory.
    ///
    /// # Errors
    /// [`VerifyError`] names the file that cannot be read.
    pub fn read(dir: &Path) -> Result<Self, VerifyError> {
        let story: Vec<StoryRecord> = read(&dir.join("story.jsonl"))?;
        let all: Vec<Effect> = read(&dir.join("actuator.jsonl"))?;
        let (deeds, effects) = all.into_iter().partition(|effect| is_deed(&effect.question.task));
        let mut clients = BTreeMap::new();
        for path in files(&dir.join("histories"))? {
            clients.insert(stem(&path), read(&path)?);
        }
        let mut voters = Vec::new();
        for path in files(&dir.join("final"))?.iter().filter(|path| path.to_string_lossy().ends_with(".head.jsonl")) {
            let beside = |what: &str| path.with_file_name(format!("{}.{what}.jsonl", stem(path)));
            let head = read::<HeadRecord>(path)?.pop();
            let head = head.ok_or_else(|| VerifyError::Missing(format!("{} is empty", path.display())))?;
            voters.push(VoterRecord { head, tasks: read(&beside("tasks"))?, changes: read(&beside("changes"))? });
        }
        let mut nodes = BTreeMap::new();
        for node in files(dir)? {
            let history = node.join("history.jsonl");
            if history.exists() {
                nodes.insert(stem(&node), read(&history)?);
            }
        }
        let evidence = Self { story, effects, deeds, clients, voters, nodes };
        let told = |what: fn(&StoryRecord) -> bool| evidence.story.iter().any(what);
        let begun = told(|record| matches!(record, StoryRecord::Begun { .. }));
        let ended = told(|record| matches!(record, StoryRecord::Ended { .. }));
        if !begun || !ended || evidence.voters.is_empty() {
            return Err(VerifyError::Missing(format!("{} holds no run that came to its end", dir.display())));
        }
        Ok(evidence)
    }

    /// Every call that a client was told is done.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&crate::record::Call, &str)> {
        self.clients.values().flatten().filter_map(|record| match record {
            ClientRecord::Ok { call, request, .. } => Some((call, request.as_str())),
            _ => None,
        })
    }

    /// How many nodes voted at the beginning.
    pub fn voters_begun(&self) -> usize {
        let begun = |record: &StoryRecord| match record {
            StoryRecord::Begun { voters, .. } => Some(*voters),
            _ => None,
        };
        self.story.iter().find_map(begun).unwrap_or(0)
    }

    /// Whether a run of a robot's software, or the node at which it was started, was killed or suspended: that explains
    /// an answer that never came.
    pub fn was_felled(&self, run: &str) -> bool {
        let nodes = self.story.iter().filter_map(|record| match record {
            StoryRecord::Placed { run: of, node, .. } if of == run => Some(node.as_str()),
            _ => None,
        });
        let nodes: BTreeSet<&str> = nodes.collect();
        let is_it = |name: &str| name == run || nodes.contains(name);
        self.story.iter().any(|record| match record {
            StoryRecord::Killed { name, held, .. } => is_it(name) || held.iter().any(|claim| claim.robot == run),
            StoryRecord::Paused { name, .. } => is_it(name),
            _ => false,
        })
    }

    /// What the software of a robot recorded, by run.
    pub(super) fn notes_of<'a>(&'a self, robot: &'a str) -> impl Iterator<Item = &'a ClientRecord> {
        self.clients.iter().filter(move |(name, _)| is_run_of(name, robot)).flat_map(|(_, notes)| notes)
    }

    /// When each leader was first seen to lead, in nanoseconds of the boot clock, rising.
    pub(crate) fn leads_ns(&self) -> Vec<u64> {
        let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
        for seen in self.nodes.values().flatten().filter(|seen| seen.leads) {
            let first = terms.entry(seen.term).or_insert(seen.mono_ns);
            *first = (*first).min(seen.mono_ns);
        }
        let mut leads: Vec<u64> = terms.into_values().collect();
        leads.sort_unstable();
        leads
    }

    /// Whether a run of a robot's software was suspended between a look at its clock and its question: then it acts on
    /// an old look. A suspended node is no excuse.
    pub fn was_paused(&self, run: &str, from_ms: u64, to_ns: u64) -> bool {
        let ends = self.story.iter().filter_map(|record| match record {
            StoryRecord::Paused { at_ns, name } if name == run => Some((*at_ns, true)),
            StoryRecord::Resumed { at_ns, name } if name == run => Some((*at_ns, false)),
            _ => None,
        });
        let ends: Vec<(u64, bool)> = ends.collect();
        let resumed = |paused: u64| ends.iter().find(|(at, begins)| !begins && *at >= paused).map(|(at, _)| *at);
        let overlaps = |paused: u64| paused <= to_ns && resumed(paused).is_none_or(|at| at >= from_ms * 1_000_000);
        ends.iter().any(|(at, begins)| *begins && overlaps(*at))
    }

    /// Whether an invariant can be judged: Skep promises how soon there is a leader again, and how soon others have the
    /// work, only for one fault at a time.
    pub(super) fn judges(&self, invariant: &str) -> bool {
        let chaos = self.story.iter().any(|record| matches!(record, StoryRecord::Fault { .. }));
        !(chaos && matches!(invariant, "L1" | "L4"))
    }

    /// The robots' leases and the longest silence of a leader, in milliseconds.
    pub fn terms(&self) -> (u64, u64) {
        let begun = |record: &StoryRecord| match record {
            StoryRecord::Begun { lease_ttl_ms, election_ms_max, .. } => Some((*lease_ttl_ms, *election_ms_max)),
            _ => None,
        };
        self.story.iter().find_map(begun).unwrap_or((5_000, 3_000))
    }

    /// When the shard's log clock stood at an instant, in milliseconds of the boot clock, by the first look at it from
    /// then on. The log clock falls behind with each new leader, by the time that a frame takes: an earlier look would
    /// place the instant before it was.
    pub fn instant_ms(&self, clock: u64) -> Option<u64> {
        let looks = self.story.iter().filter_map(|record| match record {
            StoryRecord::Begun { at_ns, clock, .. } | StoryRecord::Clock { at_ns, clock } => Some((*at_ns, *clock)),
            _ => None,
        });
        let looks: Vec<(u64, u64)> = looks.collect();
        let (at_ns, seen) = looks.iter().find(|(_, seen)| *seen >= clock).or(looks.last())?;
        (at_ns / 1_000_000 + clock.saturating_sub(*seen)).checked_sub(seen.saturating_sub(clock))
    }

    /// The transitions, as the first voter holds them. All voters hold the same, or S8 is violated.
    pub fn changes(&self) -> &[ChangeRecord] {
        self.voters.first().map(|voter| voter.changes.as_slice()).unwrap_or_default()
    }
}
