//! An operator who is granted a little, and is revoked later. In runs with a [liar](super::liar), which keeps what it signed.

use std::collections::BTreeSet;

use rand::RngExt as _;
use skep_protocol::command::{Command, CommandOp, Target};
use skep_protocol::entry::Op;
use skep_protocol::operator::{Allowed, OperatorGrant, OperatorOp};
use skep_protocol::signing::OperatorSecret;
use skep_protocol::text::{AgentId, GroupName, OperatorName, Verb};

use super::customer::{operator, place};
use super::world::Sim;

/// One command in so many is the clerk's.
const CLERKS_ONE_IN: u32 = 3;
/// Robots of which it may command every other one.
const ROBOTS: usize = 40;
/// The number of the statement by which it may do nothing any more.
pub(super) const REVOKED_BY: u64 = 2;

/// The clerk.
pub(super) fn clerk() -> OperatorSecret {
    OperatorSecret::from_seed(&[8; 32])
}

/// The key of whoever is to sign a command.
pub(super) fn secret_of(command: &Command) -> OperatorSecret {
    if command.operator == clerk().key() { clerk() } else { operator() }
}

/// What the clerk may ask for: one verb, of one group and of some robots, and never of all at once.
#[allow(clippy::expect_used, reason = "constants within their limits")]
fn grant(serial: u64) -> OperatorGrant {
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

/// Whether whoever signed a command was ever granted it.
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
            number.is_some_and(|number| Sim::groups_of(number).contains(group))
        }
        Target::All => true,
    }
}

/// Whether an operation names an operator who did not sign it. Not the product's own word, which a seeded bug changes.
pub(super) fn is_forged(op: &Op) -> bool {
    match op {
        Op::Operator(OperatorOp::ReplaceFirst { replacement }) => !replacement.is_signed(),
        Op::Operator(OperatorOp::Grant { grant }) => !grant.is_signed(),
        Op::Command(CommandOp::Send { command }) => !command.is_signed(),
        Op::Command(CommandOp::Control { order }) => !order.is_signed(),
        _ => false,
    }
}

impl Sim {
    /// Who signs the next command.
    pub(super) fn signer(&mut self) -> OperatorSecret {
        let clerks = self.liar.as_mut().is_some_and(|lying| lying.rng.random_ratio(1, CLERKS_ONE_IN));
        if clerks { clerk() } else { operator() }
    }

    /// The number of the last statement about the clerk that any voter has applied; zero for none.
    fn stated_of_clerk(&self) -> u64 {
        let (key, states) = (clerk().key(), self.hosts.iter().filter_map(|host| host.replica.as_ref()));
        let stated = states.filter_map(|replica| replica.state.operators().find(|grant| grant.operator == key));
        stated.map(|grant| grant.serial).max().unwrap_or(0)
    }

    /// What the first operator states, by the first customer: that there is a clerk, and later that there is none. It looks whether
    /// that is so, and states it again if it is not: a voter that lies may have called it done.
    pub(super) fn statement(&self, customer: usize) -> Option<Op> {
        if self.liar.is_none() || customer != 0 {
            return None;
        }
        let is_late = self.now > self.plan.run_ms / 2 || self.customers[customer].left == 1;
        let serial = match self.stated_of_clerk() {
            0 => 1,
            1 if is_late => REVOKED_BY,
            _ => return None,
        };
        let signed = grant(serial).sign(&operator()).ok()?;
        Some(Op::Operator(OperatorOp::Grant { grant: Box::new(signed) }))
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
