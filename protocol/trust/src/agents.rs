//! Which agents a member's node may serve.

use std::fmt;
use std::str::FromStr;

use skep_protocol::limits;
use skep_protocol::text::{AgentId, NodeName, TextError};

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; give the name of an agent, or how names begin and then '*'")]
pub struct AgentPatternError(#[from] TextError);

/// The name of an agent, or the beginning of names of agents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentPattern {
    /// This agent.
    One(AgentId),
    /// All agents whose names begin so: all agents, if it is empty.
    Beginning(String),
}

impl AgentPattern {
    /// Whether the pattern matches an agent.
    pub fn matches(&self, agent: &AgentId) -> bool {
        match self {
            Self::One(one) => one == agent,
            Self::Beginning(begin) => agent.as_str().starts_with(begin.as_str()),
        }
    }
}

/// Whether a member with this name, without patterns, serves an agent: the one of its own name, and those below it.
pub(crate) fn is_own(name: &NodeName, agent: &AgentId) -> bool {
    let rest = agent.as_str().strip_prefix(name.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl FromStr for AgentPattern {
    type Err = AgentPatternError;
    fn from_str(text: &str) -> Result<Self, AgentPatternError> {
        match text.strip_suffix('*') {
            None => Ok(Self::One(AgentId::new(text)?)),
            Some("") => Ok(Self::Beginning(String::new())),
            Some(begin) if begin.len() < limits::NAME_BYTES_MAX => {
                AgentId::new(begin)?;
                Ok(Self::Beginning(begin.to_owned()))
            }
            Some(begin) => Err(TextError::TooLong {
                what: "beginning of agents' names",
                bytes: begin.len(),
                max: limits::NAME_BYTES_MAX - 1,
            }
            .into()),
        }
    }
}

impl fmt::Display for AgentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(agent) => agent.fmt(f),
            Self::Beginning(begin) => write!(f, "{begin}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_how_names_begin() {
        let agent = |name: &str| AgentId::new(name).unwrap();
        let matches = |pattern: &str, name: &str| pattern.parse::<AgentPattern>().unwrap().matches(&agent(name));
        assert!(matches("amr-7", "amr-7") && !matches("amr-7", "amr-70"));
        assert!(matches("amr-*", "amr-70") && matches("*", "amr-7") && !matches("amr-*", "agv-7"));
        for good in ["amr-7", "amr-*", "*"] {
            assert_eq!(good.parse::<AgentPattern>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a*b", "**", &format!("{}*", "x".repeat(64)), &"x".repeat(65)] {
            assert!(bad.parse::<AgentPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_member_without_patterns_serves_its_own_agent_and_those_below_it() {
        let name = NodeName::new("robot-7").unwrap();
        let own = |agent: &str| is_own(&name, &AgentId::new(agent).unwrap());
        assert!(own("robot-7") && own("robot-7/arm"));
        assert!(!own("robot-70") && !own("robot-8") && !own("robot-7:arm"));
    }
}
