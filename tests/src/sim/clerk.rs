//! An operator who is granted a little, and is revoked later. Only in runs with a [liar](super::liar), which keeps what
//! this operator signed.

use std::collections::BTreeSet;

use skep_protocol::command::{Command, CommandOp, Target};
use skep_protocol::entry::Op;
use skep_protocol::operator::{Allowed, OperatorGrant, OperatorOp};
use skep_protocol::signing::OperatorSecret;
use skep_protocol::text::{AgentId, GroupName, OperatorName, Verb};
use skep_protocol::time::LogInstant;

use super::names::{groups_of, operator, place};

/// The number of robots of which it may command every other one.
const ROBOTS: usize = 40;
/// The number of the statement that revokes it.
pub(super) const REVOKED_BY: u64 = 2;

/// The key of the clerk.
pub(super) fn clerk() -> OperatorSecret {
    OperatorSecret::from_seed(&[8; 32])
}

/// The key of the operator who is to sign a command.
fn secret_of(command: &Command) -> OperatorSecret {
    if command.operator == clerk().key() { clerk() } else { operator() }
}

/// What the clerk may ask for: one verb, of one group and of some robots, and never of all at once.
#[allow(clippy::expect_used, reason = "constants within their limits")]
pub(super) fn grant(serial: u64) -> OperatorGrant {
    let robots = (0..ROBOTS).step_by(2).filter_map(|n| AgentId::new(format!("robot-{n}")).ok()).map(Target::Agent);
    let group = Target::Group(GroupName::new("odd").expect("a name"));
    let name = OperatorName::new("clerk").expect("a name");
    OperatorGrant {
        by: operator().key(),
        serial,
        verbs: Allowed::These(BTreeSet::from([Verb::new("goto").expect("a verb")])),
        targets: Allowed::These(robots.chain([group]).collect()),
        broadcast: false,
        admin_depth: 0,
        revoked: serial >= REVOKED_BY,
        ..OperatorGrant::of_first(place(), clerk().key(), name)
    }
}

/// Whether the operator who signed a command was ever granted it.
pub(super) fn may_ask(command: &Command) -> bool {
    let of_clerk =
        command.operator == clerk().key() && grant(1).allows(&command.verb, &command.target, command.deadline);
    command.operator == operator().key() || of_clerk
}

/// Whether a command is for a robot.
pub(super) fn is_for(target: &Target, agent: &AgentId) -> bool {
    match target {
        Target::Agent(one) => one == agent,
        Target::Group(group) => {
            let number = agent.as_str().strip_prefix("robot-").and_then(|number| number.parse().ok());
            number.is_some_and(|number| groups_of(number).contains(group))
        }
        Target::All => true,
    }
}

/// Whether an operation names an operator who did not sign it. Not judged by the product's own code, which a seeded bug
/// changes.
pub(super) fn is_forged(op: &Op) -> bool {
    match op {
        Op::Operator(OperatorOp::ReplaceFirst { replacement }) => !replacement.is_signed(),
        Op::Operator(OperatorOp::Grant { grant }) => !grant.is_signed(),
        Op::Command(CommandOp::Send { command }) => !command.is_signed(),
        Op::Command(CommandOp::Control { control }) => !control.is_signed(),
        _ => false,
    }
}

/// Gives a command its deadline and its signature, once its sender knows the shard's clock.
pub(super) fn sealed(op: Op, clock: LogInstant) -> Op {
    match op {
        Op::Command(CommandOp::Send { command }) => {
            let valid_ms = command.deadline.raw();
            let sealed = Command { deadline: clock.plus_ms(valid_ms), ..command.statement().clone() };
            let by = secret_of(&sealed);
            Op::Command(CommandOp::Send { command: sealed.sign(&by).map_or(command, Box::new) })
        }
        op => op,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_by_the_numbers_of_robots() {
        let robot = |n: usize| AgentId::new(format!("robot-{n}")).unwrap();
        let odd = Target::Group(GroupName::new("odd").unwrap());
        assert!(is_for(&odd, &robot(13)) && !is_for(&odd, &robot(14)) && is_for(&Target::All, &robot(14)));
        assert!(is_for(&Target::Agent(robot(3)), &robot(3)) && !is_for(&Target::Agent(robot(3)), &robot(30)));
    }
}
