//! `skep shard recover`: a shard that is beyond help, offline, on one node that still has a replica of it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use skep_client::{Genesis, ShardId};
use skep_consensus::{Identity, RecoveredView, Remains, RemainsView};
use skep_protocol::fleet::Build;

use super::super::key::KeyPath;
use super::super::made::{Made, keep_to_owner};
use super::super::output::one;
use super::super::{Common, Failure, config};

const HELP: &str = "\
For a shard that lost most of its voters for good, or whose log or term no voter can continue. Recover it on one node only: on the \
survivor that holds the last entries. No other node may start again with the data directory that it has now.

What this node holds becomes a new group with this node as its only voter, under a new genesis and in a new era of the clock. \
Commands and grants that were signed before are void, since they name the old genesis; the first operator signs the recovery and \
grants the others anew. Every deadline has passed. Move the data directories of the other nodes away, and add these nodes with 'skep \
shard add-voter'. This node keeps its present data directory beside the new one.";

/// Recover a shard that lost its quorum for good from what this node holds. The node must not run
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Recover {
    /// Do it, although what other voters acknowledged may be lost. Without this option the verb only says what it would do
    #[arg(long = "unsafe")]
    is_unsafe: bool,
    /// Log index of an entry to give up, with all after it. It must be the first entry that this build of Skep cannot apply
    #[arg(long, value_name = "INDEX")]
    give_up_from: Option<u64>,
    #[command(flatten)]
    key: KeyPath,
}

#[derive(Serialize)]
struct View {
    shard: u32,
    genesis: String,
    from_genesis: String,
    last_index: u64,
    term: u64,
    node: String,
    incarnation: String,
    lost_voters: Vec<String>,
    not_voter_any_more_of: Vec<u32>,
    kept_in: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_lacks: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    half_made_and_removed: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_by_others: Vec<PathBuf>,
}

impl Recover {
    pub(crate) fn run(self, common: &Common, build: Build) -> Result<(), Failure> {
        let node_dir = common.node_dir()?;
        if Made::find(&node_dir)? != Made::Whole {
            return Err(Failure::usage(format!("{}: there is no node here; give its --dir", node_dir.dir.display())));
        }
        keep_to_owner(&node_dir.dir, false)?;
        let (config, _) = config::read(common, Vec::new())?;
        let node = Identity::load(&node_dir.key()).map_err(Failure::failed)?.node();
        let shard = ShardId(common.shard);
        let (store, data) = (&config.control.store, node_dir.data());
        let remains = Remains::open(&data, (node, shard), build, store, self.give_up_from).map_err(Failure::failed)?;
        let was = remains.view();
        if !self.is_unsafe {
            return Err(Failure::usage(consequences(&was)));
        }
        let secret = self.key.load()?;
        if secret.key() != was.first {
            let (held, first) = (secret.key(), was.first);
            return Err(Failure::usage(format!(
                "the key is that of {held}, and the shard's first operator is {first}: give its key with --key"
            )));
        }
        let statement = remains.statement(Genesis::from_bytes(rand::random()));
        let signed = statement.sign(&secret).map_err(Failure::failed)?;
        let now = remains.recover(signed, rand::random()).map_err(Failure::failed)?;
        self.key.pin(shard)?.note(now.genesis);
        let view = view(shard, node.to_string(), &was, now);
        one(common.output, &view, &lines(&view))
    }
}

fn names(was: &RemainsView) -> Vec<String> {
    let shown = |node: String, name: Option<String>| name.map_or(node.clone(), |name| format!("{node} ({name})"));
    was.others.iter().map(|lost| shown(lost.node.to_string(), lost.name.as_ref().map(ToString::to_string))).collect()
}

/// What would come of it, for whoever decides.
fn consequences(was: &RemainsView) -> String {
    let committed = was.committed.map_or("it does not know how far they are committed".to_owned(), |index| {
        format!("it knows them to be committed up to entry {index}")
    });
    let mut text = format!(
        "nothing was done: give --unsafe if the shard is beyond help.\n\
         This node holds its entries up to {}; {committed}. All of them would go on: {} tasks pending, {} claimed, {} agents.\n\
         What others acknowledged after that would be lost, and if enough of the others come back with what they hold, there \
         would be two shards, each of which goes on.\n\
         Its other voters would be voters no more: {}.\n\
         Every command and grant that was signed under genesis {} would be over. Every deadline would have passed.",
        was.last_index,
        was.counts.pending,
        was.counts.claimed,
        was.counts.agents,
        match names(was) {
            names if names.is_empty() => "it has none".to_owned(),
            names => names.join(", "),
        },
        was.genesis,
    );
    if was.end > was.last_index {
        text += &format!("\nEntries after {} up to {} would be given up.", was.last_index, was.end);
    }
    if was.forgot {
        text += "\nThis node is known to lack entries that it acknowledged: another survivor may have more.";
    }
    if !was.other_shards.is_empty() {
        let shards: Vec<String> = was.other_shards.iter().map(ToString::to_string).collect();
        text += &format!("\nOf shards {} this node may have to be made a voter again.", shards.join(", "));
    }
    text
}

fn view(shard: ShardId, node: String, was: &RemainsView, now: RecoveredView) -> View {
    View {
        shard: shard.0,
        genesis: now.genesis.to_string(),
        from_genesis: was.genesis.to_string(),
        last_index: now.last_index,
        term: now.term,
        node,
        incarnation: now.incarnation.to_string(),
        lost_voters: was.others.iter().map(|lost| lost.node.to_string()).collect(),
        not_voter_any_more_of: was.other_shards.iter().map(|shard| shard.0).collect(),
        kept_in: now.before,
        history_lacks: now.history,
        half_made_and_removed: now.leftovers.removed,
        left_by_others: now.leftovers.kept,
    }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn lines(view: &View) -> Vec<(&'static str, String)> {
    let others: Vec<String> = view.not_voter_any_more_of.iter().map(ToString::to_string).collect();
    let next = "start this node; move the data directories of all others away before they are started, and run \
                'skep shard add-voter' for each of them";
    vec![
        ("genesis", view.genesis.clone()),
        ("before", view.from_genesis.clone()),
        ("last entry", view.last_index.to_string()),
        ("term", view.term.to_string()),
        ("voter", view.node.clone()),
        ("incarnation", view.incarnation.clone()),
        ("no voters any more", view.lost_voters.join(", ")),
        ("other shards", others.join(", ")),
        ("kept in", view.kept_in.display().to_string()),
        ("history lacks", view.history_lacks.clone().unwrap_or_default()),
        ("half made, removed", paths(&view.half_made_and_removed)),
        ("left by recoveries", paths(&view.left_by_others)),
        ("next", next.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use skep_consensus::LostVoter;
    use skep_protocol::ids::NodeId;
    use skep_protocol::query::Counts;
    use skep_protocol::signing::OperatorSecret;

    use super::*;

    fn was() -> RemainsView {
        let lost = |n: u8| LostVoter { node: NodeId::from_public_key([n; 32]), name: None };
        RemainsView {
            genesis: Genesis::from_bytes([6; 16]),
            first: OperatorSecret::from_seed(&[1; 32]).key(),
            last_index: 40,
            committed: Some(38),
            end: 40,
            term: 3,
            others: vec![lost(2), lost(3)],
            counts: Counts { pending: 5, claimed: 2, terminal: 9, agents: 4 },
            forgot: false,
            other_shards: Vec::new(),
        }
    }

    #[test]
    fn whoever_decides_is_told_what_goes_on_and_what_may_be_lost() {
        let text = consequences(&was());
        let lost = NodeId::from_public_key([3; 32]).to_string();
        for said in ["--unsafe", "up to 40", "up to entry 38", "5 tasks pending", &lost, "06060606"] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("given up") && !text.contains("lack entries") && !text.contains("Of shards"), "{text}");
        let worse = RemainsView { end: 44, forgot: true, other_shards: vec![ShardId(2)], committed: None, ..was() };
        let text = consequences(&worse);
        for said in ["after 40 up to 44", "lack entries", "Of shards 2", "does not know"] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}
