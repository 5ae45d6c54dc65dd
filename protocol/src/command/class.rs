//! Classes of commands: each has an order of its own at a robot, and room of its own on the way to it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::HomeEpoch;
use crate::limits;

/// Which other commands of the same robot a command waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CommandClass {
    /// A robot begins it when the routine one before has ended.
    #[default]
    Routine,
    /// A robot begins it whatever routine command it is doing: a command that stops a long one is of this class. A
    /// robot does urgent ones one after another.
    Urgent,
}

impl CommandClass {
    /// All classes, urgent first.
    pub const URGENT_FIRST: [Self; 2] = [Self::Urgent, Self::Routine];

    /// How many commands of this class of one agent its node may have that have not ended.
    pub const fn inbox_max(self) -> usize {
        match self {
            Self::Routine => limits::INBOX_MAX,
            Self::Urgent => limits::INBOX_URGENT_MAX,
        }
    }
}

/// A value for each class of command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerClass<T> {
    /// The value for routine commands.
    pub routine: T,
    /// The value for urgent commands.
    pub urgent: T,
}

impl<T> PerClass<T> {
    /// The values that a function gives for each class.
    pub fn from_fn(mut of: impl FnMut(CommandClass) -> T) -> Self {
        Self { routine: of(CommandClass::Routine), urgent: of(CommandClass::Urgent) }
    }

    /// The value of a class.
    pub const fn of(&self, class: CommandClass) -> &T {
        match class {
            CommandClass::Routine => &self.routine,
            CommandClass::Urgent => &self.urgent,
        }
    }

    /// The value of a class, to be changed.
    pub const fn of_mut(&mut self, class: CommandClass) -> &mut T {
        match class {
            CommandClass::Routine => &mut self.routine,
            CommandClass::Urgent => &mut self.urgent,
        }
    }
}

/// Where a command stands at one robot, which has an order for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliverySeq {
    /// The home epoch of the journal.
    pub home: HomeEpoch,
    /// The class of the command.
    pub class: CommandClass,
    /// Number of the delivery among those of the class in that home epoch, from 1.
    pub n: u64,
}

impl fmt::Display for DeliverySeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            CommandClass::Routine => "",
            CommandClass::Urgent => "u",
        };
        write!(f, "{}.{class}{}", self.home, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_one_class_are_told_from_those_of_the_other() {
        let place = |home, class, n| DeliverySeq { home: HomeEpoch(home), class, n };
        let places = [
            place(1, CommandClass::Routine, 2),
            place(1, CommandClass::Urgent, 1),
            place(1, CommandClass::Urgent, 2),
            place(2, CommandClass::Routine, 1),
        ];
        assert!(places.is_sorted(), "a journal's time goes before everything else");
        assert_eq!(places.map(|place| place.to_string()), ["1.2", "1.u1", "1.u2", "2.1"]);
    }
}
