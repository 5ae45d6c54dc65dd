//! `skep shard`

mod recover;
mod view;

use clap::Subcommand;
use skep_client::v1::shard_dump_reply::Item;
use skep_client::{Client, ClientError, FirstOperator, Genesis, OperatorKey, OperatorSecret, Place, SignedFirst};
use skep_protocol::fleet::Build;

use super::key::KeyPath;
use super::output::{Format, json, json_line, one, print, rows, uuid_text};
use super::{Common, Failure};
use view::{DumpRow, Leader, Status, views};

/// The failure for a shard that an operator would create without a first operator by oversight.
const WITHOUT_OPERATOR: &str = "nothing was done: a shard that is made without an operator never has one, so no operator \
                                can ever command its robots. Give --operator KEY ('skep key new' makes a key, and 'skep \
                                key show' names it), or --no-operator if it is for tasks alone";

#[derive(Debug, Subcommand)]
pub(crate) enum Shard {
    /// Create the shard: once in its life
    Init {
        /// PeerIds of the voters, separated by commas; this node must be one of them. Give 3 or 5
        #[arg(long, value_delimiter = ',', required = true)]
        voters: Vec<String>,
        /// Public key of the shard's first operator, as 'skep key show' prints it. It may send every command, and
        /// grants other operators what they may send. It signs with the key file of --key
        #[arg(long)]
        operator: Option<OperatorKey>,
        /// Create a shard without operators, for tasks alone: no operator can ever send it commands or recover it
        #[arg(long, conflicts_with = "operator")]
        no_operator: bool,
        /// Name of the first operator
        #[arg(long, default_value = "first", requires = "operator")]
        operator_name: String,
        #[command(flatten)]
        key: KeyPath,
    },
    /// Show the shard as this node sees it, and what is wrong with it
    Status,
    /// Print everything that one replica holds, for checkers
    Dump {
        /// Directory or endpoint of another node [default: this node]
        #[arg(long)]
        node: Option<String>,
        /// Answer from the replica without asking the leader (dumps always do)
        #[arg(long)]
        local: bool,
    },
    /// Hand the lead to another voter
    TransferLeader {
        /// PeerId of that voter [default: the one that holds most of the log]
        #[arg(long)]
        to: Option<String>,
    },
    /// Make a node a voter, in place of its earlier incarnation if that was one. Mark it with voter = true in the
    /// [[peers]] of every node first, and restart these
    AddVoter {
        /// PeerId of the node
        node: String,
    },
    /// Remove a voter
    RemoveVoter {
        /// PeerId of the voter
        node: String,
    },
    /// Recover a shard that lost its quorum for good from what this node holds. The node must not run
    Recover(recover::Recover),
}

/// The first operator of a new shard, signed by itself.
fn first_operator(place: Place, name: &str, secret: &OperatorSecret) -> Result<SignedFirst, Failure> {
    let name = name.parse().map_err(Failure::usage)?;
    FirstOperator { place, operator: secret.key(), name }.sign(secret).map_err(Failure::usage)
}

impl Shard {
    pub(crate) async fn run(self, common: &Common, build: Build) -> Result<(), Failure> {
        let format = common.output;
        let client = || common.client();
        match self {
            Self::Recover(recover) => recover.run(common, build),
            Self::Init { voters, operator, no_operator, operator_name, key } => {
                if operator.is_none() && !no_operator {
                    return Err(Failure::usage(WITHOUT_OPERATOR));
                }
                let client = client()?;
                let genesis = Genesis::from_bytes(rand::random());
                let first = match operator {
                    None => None,
                    Some(operator) => {
                        let secret = key.load()?;
                        if secret.key() != operator {
                            let held = secret.key();
                            return Err(Failure::usage(format!(
                                "the key is that of {held}, and not of {operator}: give its own with --key"
                            )));
                        }
                        let site = client.node_status().await?.site.parse().map_err(Failure::failed)?;
                        let place = Place { site, shard: client.shard(), genesis };
                        Some(first_operator(place, &operator_name, &secret)?)
                    }
                };
                let made = client.init_shard(voters, genesis, first.as_ref()).await?;
                if first.is_some() {
                    key.pin(client.shard())?.note(genesis);
                }
                rows(format, &views(made.voters))
            }
            Self::AddVoter { node } => rows(format, &views(client()?.add_voter(&node).await?.voters)),
            Self::RemoveVoter { node } => rows(format, &views(client()?.remove_voter(&node).await?.voters)),
            Self::TransferLeader { to } => {
                let leader = client()?.transfer_leader(to.as_deref().unwrap_or_default()).await?.leader;
                one(format, &Leader { leader: leader.clone() }, &[("leader", leader)])
            }
            Self::Status => Status::from(client()?.shard_status().await?).print(format),
            Self::Dump { node, local: _ } => {
                let client = match node {
                    Some(node) => of_node(common, &node)?,
                    None => client()?,
                };
                dump(format, &client).await
            }
        }
    }
}

fn of_node(common: &Common, node: &str) -> Result<Client, Failure> {
    let dir = std::path::Path::new(node);
    let (dir, endpoint) = if dir.is_dir() { (Some(dir.to_owned()), None) } else { (None, Some(node.to_owned())) };
    Common { dir, endpoint, ..common.clone() }.client()
}

/// Prints the head and then one task a line, as they come.
async fn dump(format: Format, client: &Client) -> Result<(), Failure> {
    let mut items = client.dump_shard().await?;
    let mut tasks = Vec::new();
    let mut head = None;
    while let Some(reply) = items.message().await.map_err(|status| ClientError::of_stream(&status))? {
        match reply.item {
            Some(Item::Head(reply)) => head = Some(Status::from(reply)),
            Some(Item::Task(task)) => {
                let row = DumpRow {
                    task: uuid_text(&task.task_id),
                    status: task.status,
                    epoch: task.epoch,
                    attempts: task.attempts,
                };
                match format {
                    Format::Json => tasks.push(row),
                    Format::Jsonl => json_line(&row)?,
                    Format::Table => print(&format!("{} {} {} {}", row.task, row.status, row.epoch, row.attempts))?,
                }
            }
            None => {}
        }
    }
    let head = head.ok_or_else(|| Failure::failed("the replica said nothing"))?;
    match format {
        Format::Json => {
            let whole = serde_json::json!({ "head": head, "tasks": tasks });
            json(&whole)
        }
        Format::Jsonl => json_line(&head),
        Format::Table => head.print(format),
    }
}
