//! `skep task`

mod create;
mod view;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use skep_client::{Claim, Client, Read, TaskReceipt, TaskStatus};

use super::output::{Format, one, uuid_bytes, uuid_text};
use super::resend::Resend;
use super::{Common, Failure};
use view::{read, status_text};

/// Prints a task and its life.
pub(super) async fn show(client: &Client, format: Format, task: &[u8]) -> Result<(), Failure> {
    view::show(client, format, task, Read::Linearizable).await
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Create a task
    Create(create::Create),
    /// Claim a task: the first committed claim wins
    Claim {
        /// Id of the task (UUID) [default: the most urgent task that suits the agent]
        task: Option<String>,
        /// Id of the agent
        #[arg(long, env = "SKEP_AGENT", default_value = "cli")]
        agent: String,
        #[command(flatten)]
        resend: Resend,
    },
    /// Report how far a claimed task has come
    Progress {
        /// Id of the task (UUID)
        task: String,
        /// Done part of the work, in percent: 0 to 100
        #[arg(value_parser = clap::value_parser!(u32).range(0..=100))]
        percent: u32,
        /// Note for people
        #[arg(long, default_value = "")]
        note: String,
        #[command(flatten)]
        holder: Holder,
    },
    /// Complete a claimed task
    Complete {
        /// Id of the task (UUID)
        task: String,
        /// Result, as text
        #[arg(long, default_value = "")]
        result: String,
        #[command(flatten)]
        holder: Holder,
    },
    /// Report that an attempt at a claimed task failed
    Fail {
        /// Id of the task (UUID)
        task: String,
        /// Reason, for people
        #[arg(long)]
        reason: String,
        /// Make the task a dead letter at once: another attempt is useless
        #[arg(long)]
        permanent: bool,
        #[command(flatten)]
        holder: Holder,
    },
    /// Give a claimed task back, neither done nor failed
    Release {
        /// Id of the task (UUID)
        task: String,
        #[command(flatten)]
        holder: Holder,
    },
    /// Cancel a task
    Cancel {
        /// Id of the task (UUID)
        task: String,
        /// Reason, for people
        #[arg(long, default_value = "cancelled by an operator")]
        reason: String,
        #[command(flatten)]
        resend: Resend,
    },
    /// Make a task pending again, with all its attempts
    Requeue {
        /// Id of the task (UUID)
        task: String,
        /// Reason, for people
        #[arg(long, default_value = "requeued by an operator")]
        reason: String,
        #[command(flatten)]
        resend: Resend,
    },
    /// List live tasks, and tasks that ended lately
    List {
        /// Only tasks in this status; repeat for more
        #[arg(long, value_enum)]
        status: Vec<Status>,
        /// Most tasks to print
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Show one task and its timeline
    Show {
        /// Id of the task (UUID)
        task: String,
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Follow transitions of tasks as they happen, until Ctrl-C
    Watch {
        /// Feed to follow: new-orders, assigned-tasks or task-completions; repeat for more [default: all]
        #[arg(long = "feed")]
        feeds: Vec<String>,
        /// First log index to print [default: only what is new]
        #[arg(long)]
        from: Option<u64>,
    },
}

/// Who holds the claim.
#[derive(Debug, clap::Args)]
pub(crate) struct Holder {
    /// Id of the agent that holds the claim
    #[arg(long, env = "SKEP_AGENT", default_value = "cli")]
    agent: String,
    /// Epoch of the claim [default: the latest]
    #[arg(long)]
    epoch: Option<u64>,
    #[command(flatten)]
    resend: Resend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Status {
    Pending,
    Claimed,
    Completed,
    DeadLettered,
    Cancelled,
    Expired,
}

impl From<Status> for TaskStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Claimed => Self::Claimed,
            Status::Completed => Self::Completed,
            Status::DeadLettered => Self::DeadLettered,
            Status::Cancelled => Self::Cancelled,
            Status::Expired => Self::Expired,
        }
    }
}

#[derive(Serialize)]
struct Receipt {
    task: String,
    status: &'static str,
    epoch: u64,
    attempts: u32,
    index: u64,
    request: String,
}

/// Prints what became of a task.
pub(super) fn print_receipt(format: Format, receipt: TaskReceipt) -> Result<(), Failure> {
    let receipt = Receipt {
        task: uuid_text(&receipt.task_id),
        status: status_text(receipt.status),
        epoch: receipt.epoch,
        attempts: receipt.attempts,
        index: receipt.index,
        request: uuid_text(&receipt.request_id),
    };
    let epoch = if receipt.epoch > 0 { receipt.epoch.to_string() } else { String::new() };
    let lines = [
        ("task", receipt.task.clone()),
        ("status", receipt.status.to_owned()),
        ("epoch", epoch),
        ("index", receipt.index.to_string()),
    ];
    one(format, &receipt, &lines)
}

/// The claim that a holder means, with the epoch that it gave, or the latest; and the client to say something of it.
async fn claim(client: &Client, task: &str, holder: Holder) -> Result<(Client, Claim), Failure> {
    let task_id = uuid_bytes(task)?;
    let epoch = match holder.epoch {
        Some(epoch) => epoch,
        None => client.task(&task_id, Read::Linearizable).await?.task.unwrap_or_default().epoch,
    };
    Ok((holder.resend.client(client).await?, Claim { task_id, agent: holder.agent, epoch }))
}

impl Task {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let format = common.output;
        let receipt = match self {
            Self::Create(create) => {
                let (resend, spec) = (create.resend.clone(), create.spec()?);
                resend.client(&client).await?.create_task(spec).await?
            }
            Self::Claim { task, agent, resend } => {
                let task = task.map(|task| uuid_bytes(&task)).transpose()?;
                let reply = resend.client(&client).await?.claim_task(&agent, task.as_deref()).await?;
                let nothing = || Failure::not_found(format!("nothing that suits agent {agent} waits"));
                reply.receipt.ok_or_else(nothing)?
            }
            Self::Progress { task, percent, note, holder } => {
                let (client, claim) = claim(&client, &task, holder).await?;
                client.report_progress(claim, percent * 10, &note).await?
            }
            Self::Complete { task, result, holder } => {
                let (client, claim) = claim(&client, &task, holder).await?;
                client.complete_task(claim, result.into_bytes()).await?
            }
            Self::Fail { task, reason, permanent, holder } => {
                let (client, claim) = claim(&client, &task, holder).await?;
                client.fail_task(claim, &reason, permanent).await?
            }
            Self::Release { task, holder } => {
                let (client, claim) = claim(&client, &task, holder).await?;
                client.release_task(claim).await?
            }
            Self::Cancel { task, reason, resend } => {
                let task = uuid_bytes(&task)?;
                resend.client(&client).await?.cancel_task(&task, &reason).await?
            }
            Self::Requeue { task, reason, resend } => {
                let task = uuid_bytes(&task)?;
                resend.client(&client).await?.requeue_task(&task, &reason).await?
            }
            Self::List { status, limit, stale } => {
                return view::list(&client, format, &status, limit as usize, read(stale)).await;
            }
            Self::Show { task, stale } => return view::show(&client, format, &uuid_bytes(&task)?, read(stale)).await,
            Self::Watch { feeds, from } => return view::watch(&common.watcher()?, format, &feeds, from).await,
        };
        print_receipt(format, receipt)
    }
}
