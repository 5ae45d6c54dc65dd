//! Commands and operators at the border.

use std::collections::BTreeSet;

use skep_protocol::command::{
    Command, CommandClass, CommandOp, CommandOutcome, CommandView, DeliveryView, InvalidCommand, VoidCause,
};
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::ids::{AttachmentId, CommandId, Genesis, HomeEpoch, ShardId};
use skep_protocol::limits;
use skep_protocol::offer::{CommandSaid, CommandTold, GoToken};
use skep_protocol::operator::{Allowed, KnownFirst, OperatorGrant, OperatorOp, SignedFirst, SignedGrant};
use skep_protocol::query::AsOf;
use skep_protocol::signing::Place;
use skep_protocol::text::{GroupName, Reason, SiteName};
use skep_protocol::time::LogInstant;

use super::statements::signed;
use super::{Meta, duration_to_proto, meta};
use crate::v1;

/// Reads a command id of 16 bytes.
///
/// # Errors
/// [`FieldError`] if there are not exactly 16.
pub fn command_id(bytes: &[u8]) -> Result<CommandId, FieldError> {
    bytes.try_into().map(CommandId::from_bytes).map_err(|_| field("command_id", "give the 16 bytes of a UUID"))
}

/// Reads a command id of 16 bytes, or none.
///
/// # Errors
/// [`FieldError`] if there are neither 0 nor 16 bytes.
pub fn optional_command_id(bytes: &[u8]) -> Result<Option<CommandId>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { command_id(bytes).map(Some) }
}

/// Whether a list of allowed names is empty and does not allow any.
fn names_none<T: Ord>(allowed: &Allowed<T>) -> bool {
    matches!(allowed, Allowed::These(these) if these.is_empty())
}

/// Reads the genesis of a shard, 16 bytes.
///
/// # Errors
/// [`FieldError`] if there are not exactly 16.
pub fn genesis(bytes: &[u8]) -> Result<Genesis, FieldError> {
    bytes.try_into().map(Genesis::from_bytes).map_err(|_| field("genesis", "give 16 random bytes"))
}

/// Reads the statement by which the first operator of a new shard proves that it has its key; none if the shard is to
/// have no operators.
///
/// # Errors
/// [`FieldError`].
pub fn first_operator(stated: Option<v1::SignedStatement>) -> Result<Option<SignedFirst>, FieldError> {
    stated.map(|stated| signed("operator", Some(stated))).transpose()
}

/// Reads a request to grant an operator something.
///
/// # Errors
/// [`FieldError`].
pub fn grant_operator(request: v1::GrantOperatorRequest) -> Result<(Meta, OperatorOp), FieldError> {
    let meta = meta(request.meta)?;
    let grant: SignedGrant = signed("grant", request.grant)?;
    // A client that reads lists would take an empty one for any.
    if !grant.revoked && (names_none(&grant.verbs) || names_none(&grant.targets)) {
        return Err(field("grant", "it names no verb, or no target; name some, or allow any, or revoke the operator"));
    }
    Ok((meta, OperatorOp::Grant { grant: Box::new(grant) }))
}

/// Reads a request to replace the first operator by another key.
///
/// # Errors
/// [`FieldError`].
pub fn replace_first(request: v1::ReplaceFirstRequest) -> Result<(Meta, OperatorOp), FieldError> {
    let meta = meta(request.meta)?;
    Ok((meta, OperatorOp::ReplaceFirst { replacement: Box::new(signed("replacement", request.replacement)?) }))
}

/// Reads a request to send a command.
///
/// # Errors
/// [`FieldError`].
pub fn send_command(request: v1::SendCommandRequest) -> Result<(Meta, CommandOp), FieldError> {
    let meta = meta(request.meta)?;
    Ok((meta, CommandOp::Send { command: Box::new(signed("command", request.command)?) }))
}

/// Reads a request to control a command.
///
/// # Errors
/// [`FieldError`].
pub fn control_command(request: v1::ControlCommandRequest) -> Result<(Meta, CommandOp), FieldError> {
    let meta = meta(request.meta)?;
    Ok((meta, CommandOp::Control { control: Box::new(signed("control", request.control)?) }))
}

/// Reads the groups that an agent belongs to, and the commands that its software has in hand.
///
/// # Errors
/// [`FieldError`] if there are too many of either, or one is not a name or not an id.
pub fn take_commands(take: &v1::TakeCommands) -> Result<(BTreeSet<GroupName>, BTreeSet<CommandId>), FieldError> {
    if take.groups.len() > limits::GROUPS_MAX {
        let (given, max) = (take.groups.len(), limits::GROUPS_MAX as u64);
        return Err(field("groups", InvalidCommand::Groups { given, max }));
    }
    if take.in_hand.len() > limits::COMMANDS_IN_HAND_MAX {
        let (given, max) = (take.in_hand.len(), limits::COMMANDS_IN_HAND_MAX);
        return Err(field("in_hand", format!("{given} commands; {max} at most")));
    }
    let groups = take.groups.iter().map(|name| GroupName::new(name).in_field("groups")).collect::<Result<_, _>>()?;
    let in_hand = take.in_hand.iter().map(|id| command_id(id)).collect::<Result<_, _>>()?;
    Ok((groups, in_hand))
}

/// Reads what an agent's software says of a command.
///
/// # Errors
/// [`FieldError`].
pub fn command_step(step: v1::CommandStep) -> Result<(CommandId, CommandSaid), FieldError> {
    use v1::command_step::Step;
    let id = command_id(&step.command_id)?;
    let said = match step.step {
        Some(Step::Accept(v1::AcceptCommand {})) => CommandSaid::Accept,
        Some(Step::Reject(reason)) => CommandSaid::Reject { reason: Reason::truncated(&reason) },
        Some(Step::Start(stamp)) => CommandSaid::Start { stamp },
        Some(Step::Succeeded(result)) => CommandSaid::Succeeded { result },
        Some(Step::Failed(reason)) => CommandSaid::Failed { reason: Reason::truncated(&reason) },
        Some(Step::Progress(said)) => {
            let permille = super::permille(said.permille)?;
            CommandSaid::Progress { permille, note: Reason::truncated(&said.note) }
        }
        None => return Err(field("step", "it is missing")),
    };
    Ok((id, said))
}

/// Reads the fencing token of a "go"; the least token if there is none.
pub fn go_token(token: Option<v1::GoToken>) -> GoToken {
    let token = token.unwrap_or_default();
    GoToken { home: HomeEpoch(token.home), attachment: AttachmentId(token.attachment) }
}

/// The protobuf form of what a node tells an agent's software of a command.
pub fn news_to_proto(command: CommandId, told: CommandTold) -> v1::CommandNews {
    use v1::command_news::News;
    let news = match told {
        CommandTold::Offer(signed) => News::Offer(command_to_proto(&signed)),
        CommandTold::Go { stamp, within_ms, token } => {
            let token = v1::GoToken { home: token.home.0, attachment: token.attachment.0 };
            News::Go(v1::GoAhead { stamp, within: Some(duration_to_proto(within_ms)), token: Some(token) })
        }
        CommandTold::Void(cause) => News::Void(cause.name().to_owned()),
        CommandTold::Interrupted => News::Interrupted(v1::CommandInterrupted {}),
        CommandTold::Recorded(outcome) => News::Recorded(outcome.name().to_owned()),
        CommandTold::Ignored => News::Ignored(v1::CommandIgnored { for_good: false }),
        CommandTold::Unknown => News::Ignored(v1::CommandIgnored { for_good: true }),
    };
    v1::CommandNews { command_id: command.as_bytes().to_vec(), news: Some(news) }
}

fn id_to_proto(id: Option<CommandId>) -> Vec<u8> {
    id.map(|id| id.as_bytes().to_vec()).unwrap_or_default()
}

/// The protobuf form of a command.
pub fn command_to_proto(command: &Command) -> v1::Command {
    v1::Command {
        id: command.id.as_bytes().to_vec(),
        target: command.target.to_string(),
        verb: command.verb.to_string(),
        content_type: command.content_type.to_string(),
        args: command.args.to_vec(),
        deadline: command.deadline.raw(),
        urgent: command.class == CommandClass::Urgent,
        idempotent: command.idempotent,
        supersedes: id_to_proto(command.supersedes),
        parent: id_to_proto(command.parent),
        traceparent: command.trace.to_string(),
        operator: command.operator.to_string(),
    }
}

/// The protobuf form of a command as a shard knows it.
pub fn command_view_to_proto(view: &CommandView) -> v1::CommandView {
    v1::CommandView {
        command: Some(command_to_proto(&view.command)),
        accepted_at: view.accepted_at.raw(),
        index: view.index,
        term: view.term,
        agents: view.agents,
        open: view.open,
        failed: view.failed,
        discarded: view.discarded,
        deliveries: view.deliveries.iter().map(delivery_to_proto).collect(),
    }
}

fn delivery_to_proto(view: &DeliveryView) -> v1::CommandDelivery {
    let at = |instant: Option<LogInstant>| instant.map_or(0, LogInstant::raw);
    let (reason, result) = match &view.outcome {
        Some(CommandOutcome::Succeeded { result }) => (String::new(), result.clone()),
        Some(
            CommandOutcome::Failed { reason }
            | CommandOutcome::Rejected { reason }
            | CommandOutcome::Indeterminate { reason },
        ) => (reason.to_string(), Vec::new()),
        Some(CommandOutcome::Expired | CommandOutcome::Cancelled | CommandOutcome::Superseded) | None => {
            (String::new(), Vec::new())
        }
    };
    v1::CommandDelivery {
        agent: view.agent.to_string(),
        wave: view.wave,
        seq: view.seq.map(|seq| seq.to_string()).unwrap_or_default(),
        released_at: at(view.released_at),
        received_at: at(view.steps.received),
        accepted_at: at(view.steps.accepted),
        started_at: at(view.steps.started),
        finished_at: at(view.steps.ended),
        ended_at: at(view.ended_at),
        void: view.void.map(VoidCause::name).unwrap_or_default().to_owned(),
        outcome: view.outcome.as_ref().map(CommandOutcome::name).unwrap_or_default().to_owned(),
        reason,
        result,
        node: view.node.map(|node| node.to_string()).unwrap_or_default(),
        progress: view.progress.as_ref().map(|progress| v1::CommandProgress {
            permille: progress.permille.into(),
            note: progress.note.to_string(),
            at: at(progress.at),
        }),
    }
}

/// Reads how a command ended at a robot, as a node says; none if it has not ended.
///
/// # Errors
/// [`FieldError`] if the name of the outcome is not known here.
pub fn outcome(of: &v1::CommandDelivery) -> Result<Option<CommandOutcome>, FieldError> {
    if of.outcome.is_empty() {
        return Ok(None);
    }
    let reason = Reason::truncated(&of.reason);
    let known = [
        CommandOutcome::Succeeded { result: of.result.clone() },
        CommandOutcome::Failed { reason: reason.clone() },
        CommandOutcome::Rejected { reason: reason.clone() },
        CommandOutcome::Expired,
        CommandOutcome::Cancelled,
        CommandOutcome::Superseded,
        CommandOutcome::Indeterminate { reason },
    ];
    let outcome = known.into_iter().find(|outcome| outcome.name() == of.outcome);
    outcome.map(Some).ok_or_else(|| field("outcome", format!("{:?} is not known here", of.outcome)))
}

/// The protobuf form of an operator.
pub fn operator_to_proto(grant: &OperatorGrant) -> v1::OperatorView {
    fn names<T: Ord + ToString>(allowed: &Allowed<T>) -> Vec<String> {
        match allowed {
            Allowed::Any => Vec::new(),
            Allowed::These(these) => these.iter().map(ToString::to_string).collect(),
        }
    }
    v1::OperatorView {
        operator: grant.operator.to_string(),
        name: grant.name.to_string(),
        serial: grant.serial,
        verbs: names(&grant.verbs),
        targets: names(&grant.targets),
        broadcast: grant.broadcast,
        per_minute: grant.per_minute,
        admin_depth: grant.admin_depth,
        revoked: grant.revoked,
        until: grant.until.map_or(0, LogInstant::raw),
        by: grant.by.to_string(),
    }
}

/// The protobuf form of the place where statements hold.
pub fn place_to_proto(as_of: &AsOf, place: &Place, first: Option<KnownFirst>, serial_floor: u64) -> v1::PlaceReply {
    v1::PlaceReply {
        as_of: Some(super::as_of_to_proto(as_of)),
        site: place.site.to_string(),
        shard: place.shard.0,
        genesis: place.genesis.as_bytes().to_vec(),
        first_operator: first.map(|first| first.operator.to_string()).unwrap_or_default(),
        replaced: first.map_or(0, |first| first.replaced),
        serial_floor,
    }
}

/// Reads the place where statements hold, as a node says.
///
/// # Errors
/// [`FieldError`].
pub fn place(reply: &v1::PlaceReply) -> Result<Place, FieldError> {
    let (site, shard) = (SiteName::new(&reply.site).in_field("site")?, ShardId(reply.shard));
    Ok(Place { site, shard, genesis: genesis(&reply.genesis)? })
}

/// Reads how long a query waits for the end of a command, in milliseconds; 0 for no wait.
///
/// # Errors
/// [`FieldError`] if the duration is not valid.
pub fn wait_ms(wait: Option<prost_types::Duration>) -> Result<u32, FieldError> {
    let ms = super::duration_ms("wait", wait)?.unwrap_or(0);
    Ok(u32::try_from(ms).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_nothing_is_refused_and_not_shown_as_one_of_everything() {
        // Koed00/django-q#602
        let by = skep_protocol::signing::OperatorSecret::from_seed(&[1; 32]);
        let place = Place { site: "s".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) };
        let any = OperatorGrant { serial: 1, ..OperatorGrant::of_first(place, by.key(), "n".parse().unwrap()) };
        let stated = |grant: &OperatorGrant| {
            let signed = grant.clone().sign(&by).unwrap();
            let grant = Some(super::super::signed_to_proto(&signed));
            grant_operator(v1::GrantOperatorRequest { grant, ..Default::default() })
        };
        let no_verb = OperatorGrant { verbs: Allowed::These(BTreeSet::new()), ..any.clone() };
        let nobody = OperatorGrant { targets: Allowed::These(BTreeSet::new()), ..any.clone() };
        for refused in [&no_verb, &nobody] {
            assert_eq!(stated(refused).unwrap_err().field, "grant");
        }
        assert!(stated(&any).is_ok());
        assert!(stated(&OperatorGrant { revoked: true, ..nobody }).is_ok(), "it may do nothing, and is shown so");
    }

    #[test]
    fn how_a_command_ended_is_read_as_it_was_written() {
        let reason = Reason::new("jammed").unwrap();
        let all = [
            None,
            Some(CommandOutcome::Succeeded { result: vec![1, 2] }),
            Some(CommandOutcome::Failed { reason: reason.clone() }),
            Some(CommandOutcome::Rejected { reason: reason.clone() }),
            Some(CommandOutcome::Expired),
            Some(CommandOutcome::Cancelled),
            Some(CommandOutcome::Superseded),
            Some(CommandOutcome::Indeterminate { reason }),
        ];
        for ended in all {
            let view = DeliveryView {
                agent: "r1".parse().unwrap(),
                wave: 0,
                seq: None,
                node: None,
                released_at: None,
                steps: skep_protocol::command::Steps::default(),
                void: None,
                outcome: ended.clone(),
                ended_at: None,
                progress: None,
            };
            assert_eq!(outcome(&delivery_to_proto(&view)), Ok(ended));
        }
        let newer = v1::CommandDelivery { outcome: "postponed".to_owned(), ..Default::default() };
        assert_eq!(outcome(&newer).unwrap_err().field, "outcome");
    }

    #[test]
    fn software_names_as_many_commands_in_its_hands_as_its_node_has_and_no_more() {
        let take = |count: usize| v1::TakeCommands {
            groups: vec!["aisle".to_owned()],
            in_hand: (0..count).map(|n| vec![u8::try_from(n).unwrap(); 16]).collect(),
        };
        let (groups, in_hand) = take_commands(&take(limits::COMMANDS_IN_HAND_MAX)).unwrap();
        assert_eq!((groups.len(), in_hand.len()), (1, limits::COMMANDS_IN_HAND_MAX));
        assert_eq!(take_commands(&take(limits::COMMANDS_IN_HAND_MAX + 1)).unwrap_err().field, "in_hand");
        let mut short = take(1);
        short.in_hand[0].pop();
        assert!(take_commands(&short).is_err());
    }
}
