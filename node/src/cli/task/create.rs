//! What a new task is to be.

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
    /// One line for people
    title: String,
    /// What sort of work it is
    #[arg(long = "type", default_value = "task")]
    kind: String,
    /// How urgent it is
    #[arg(long, value_enum, default_value_t = Urgency::Normal)]
    priority: Urgency,
    /// Something that an agent must be able to do; repeat for more
    #[arg(long = "require", value_name = "CAPABILITY")]
    required: Vec<String>,
    /// What the agent needs to know
    #[arg(long, default_value = "")]
    payload: String,
    /// Attempts in all
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    attempts: u32,
    /// Wait before the second attempt; doubles with every attempt
    #[arg(long, value_parser = parse_span, default_value = "1s")]
    backoff: Duration,
    /// A claim without progress for this long is taken back
    #[arg(long, value_parser = parse_span, default_value = "15m")]
    stale_after: Duration,
    /// The task expires this long from now
    #[arg(long, value_parser = parse_span)]
    valid_for: Option<Duration>,
    /// How long its holder counts as coming back after its lease has ended
    #[arg(long, value_parser = parse_span, default_value = "0s")]
    lost_after: Duration,
    /// Nobody else gets the task while its holder may come back
    #[arg(long, requires = "lost_after")]
    no_replace: bool,
    /// A holder that is back in time goes first, unless another agent has the task by then
    #[arg(long, requires = "lost_after")]
    keep_original: bool,
    /// Where it begins, for the nearest policy: X,Y in millimetres
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
    /// What the client sends.
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
