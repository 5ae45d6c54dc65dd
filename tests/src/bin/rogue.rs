//! A robot whose key was stolen, in a site at work: for `skep testnet chaos --bad-robot`.
//!
//! Its output is a line of JSON that names all of its deeds, and one line for each deed that it did. It ends when its
//! input does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde::{Deserialize, Serialize};
use skep_protocol::ids::NodeId;
use skep_tests::rogue::{DEEDS, Deed, Turns, Victim, identity};

/// Be a listed peer that votes nowhere and does what it likes, by turns, to all nodes of a site
#[derive(Debug, Parser)]
struct Args {
    /// Seed of its key, and of what it does when
    #[arg(long)]
    seed: u64,
    /// Print the PeerId, and end
    #[arg(long)]
    identity: bool,
    /// The nodes: a list of objects with node, control and mesh
    #[arg(long, required_unless_present = "identity")]
    nodes: Option<PathBuf>,
    /// Number of robots for which it speaks
    #[arg(long, default_value_t = 1)]
    robots: usize,
    /// Address of this machine from which it calls
    #[arg(long, default_value = "127.0.0.1")]
    from: IpAddr,
}

/// A node, as the list has it.
#[derive(Deserialize)]
struct Listed {
    node: String,
    control: String,
    mesh: String,
}

/// The first line of its output.
#[derive(Serialize)]
struct Announced {
    deeds: [&'static str; DEEDS.len()],
}

/// Another line of its output.
#[derive(Serialize)]
struct Line<'a> {
    deed: &'a str,
    node: String,
    /// How often the deed reached a node; zero if it did not.
    times: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn victims(list: &Path) -> Result<Vec<Victim>, String> {
    let listed = std::fs::read(list).map_err(|error| format!("{}: {error}", list.display()))?;
    let listed: Vec<Listed> = serde_json::from_slice(&listed).map_err(text)?;
    listed.into_iter().map(victim).collect()
}

fn victim(Listed { node, control, mesh }: Listed) -> Result<Victim, String> {
    let node = node.parse::<NodeId>().map_err(text)?;
    let control = control.parse::<SocketAddr>().map_err(text)?;
    Ok(Victim { node, control, mesh })
}

/// Ends the process once its input is closed: then the process that started it has ended.
fn end_with_input() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

async fn work(args: Args) -> Result<(), String> {
    let list = args.nodes.ok_or("give --nodes")?;
    let mut turns = Turns::begin(args.seed, args.from, victims(&list)?, args.robots)?;
    let announced = serde_json::to_string(&Announced { deeds: DEEDS.map(Deed::name) }).map_err(text)?;
    writeln!(std::io::stdout(), "{announced}").map_err(text)?;
    loop {
        let done = turns.next_deed().await;
        let (times, why) = match &done.result {
            Ok(times) => (*times, None),
            Err(why) => (0, Some(why.as_str())),
        };
        let line = Line { deed: done.deed.name(), node: done.to.to_string(), times, why };
        let line = serde_json::to_string(&line).map_err(text)?;
        writeln!(std::io::stdout(), "{line}").map_err(text)?;
    }
}

fn run() -> Result<(), String> {
    let args = Args::parse();
    if args.identity {
        let node = identity(args.seed)?;
        return writeln!(std::io::stdout(), "{node}").map_err(text);
    }
    end_with_input();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(text)?;
    runtime.block_on(work(args))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}
