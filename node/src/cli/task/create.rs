//! The arguments of a new task.

use std::time::Duration;

use clap::{Args, ValueEnum};
use skep_client::TaskSpec;
use skep_client::v1::{DisconnectPolicy, Position, Priority, Reconcile, RetryPolicy};

use crate::cli::Failure;
use crate::cli::output::parse_span;
use crate::cli::resend::Resend;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Urgency {
    Low,
    Normal,
    High,
    Urgent,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Title for people: one line, up to 256 bytes
    title: String,
    /// Type of the work: a name
    #[arg(long = "type", default_value = "task")]
    kind: String,
    /// Priority of the task
    #[arg(long, value_enum, default_value_t = Urgency::Normal)]
    priority: Urgency,
    /// Capability that the agent must have; repeat for more
    #[arg(long = "require", value_name = "CAPABILITY")]
    required: Vec<String>,
    /// Payload for the agent: text of up to 64 KiB
    #[arg(long, default_value = "")]
    payload: String,
    /// Most attempts: 1 to 1000
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    attempts: u32,
    /// Wait before the second attempt, such as 1s; it doubles with every attempt
    #[arg(long, value_parser = parse_span, default_value = "1s")]
    backoff: Duration,
    /// How long a claim may go without progress until the shard takes it back, such as 15m
    #[arg(long, value_parser = parse_span, default_value = "15m")]
    stale_after: Duration,
    /// How long until the task expires, such as 1h [default: never]
    #[arg(long, value_parser = parse_span)]
    valid_for: Option<Duration>,
    /// How long the holder counts as coming back after its lease has ended, such as 30s
    #[arg(long, value_parser = parse_span, default_value = "0s")]
    lost_after: Duration,
    /// Give the task to no other agent while its holder may come back
    #[arg(long, requires = "lost_after")]
    no_replace: bool,
    /// Give the task to its former holder first if that is back in time, unless another agent has it by then
    #[arg(long, requires = "lost_after")]
    keep_original: bool,
    /// Where the task begins: X,Y in millimetres, for the policy 'nearest'
    #[arg(long, value_name = "X,Y", allow_hyphen_values = true)]
    place: Option<String>,
    #[command(flatten)]
    pub(super) resend: Resend,
}

fn proto_span(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

fn position(text: &str) -> Result<Position, Failure> {
    let parsed = text.split_once(',').and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
    let (x_mm, y_mm) = parsed.ok_or_else(|| Failure::usage(format!("{text:?} is not X,Y in millimetres")))?;
    Ok(Position { x_mm, y_mm })
}

impl Create {
    /// The task that the client sends.
    pub(super) fn spec(self) -> Result<TaskSpec, Failure> {
        let priority = match self.priority {
            Urgency::Low => Priority::Low,
            Urgency::Normal => Priority::Normal,
            Urgency::High => Priority::High,
            Urgency::Urgent => Priority::Urgent,
        };
        let (attempts_max, backoff_initial) = (Some(self.attempts), proto_span(self.backoff));
        let reconcile = if self.keep_original { Reconcile::KeepOriginal } else { Reconcile::FirstCome };
        Ok(TaskSpec {
            title: self.title,
            r#type: self.kind,
            priority: priority.into(),
            required_capabilities: self.required,
            payload: self.payload.into_bytes(),
            retry: Some(RetryPolicy { attempts_max, backoff_initial, backoff_max: None }),
            stale_after: proto_span(self.stale_after),
            valid_for: self.valid_for.and_then(proto_span),
            disconnect: Some(DisconnectPolicy {
                lost_after: proto_span(self.lost_after),
                do_not_replace: self.no_replace,
                reconcile: reconcile.into(),
            }),
            place: self.place.as_deref().map(position).transpose()?,
        })
    }
}
