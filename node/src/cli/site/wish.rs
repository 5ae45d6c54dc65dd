//! Whom an operator invites: by the options of a line, or by the lines of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::text::{Capability, NodeName};
use skep_trust::{AgentPattern, Grants, Role, Scope};

use crate::cli::Failure;

/// The largest file of invitations: there are no more members than this has room for.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long the certificates may hold that an invited issuer issues, in milliseconds of site time: 30 days.
const ISSUED_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// The columns that a file may have.
const COLUMNS: [&str; 5] = ["name", "role", "can", "agents", "node"];

/// What new members are, unless a file says otherwise.
#[derive(Clone, Debug, Args)]
pub(super) struct Terms {
    /// Role of the new member: robot, agent, observer, voter, witness, gateway, operator or issuer; repeat for more
    /// [default: robot]
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Capability of the new member; repeat for more
    #[arg(long = "can", value_name = "CAPABILITY")]
    capabilities: Vec<Capability>,
    /// Agent that the new member's node may serve: a name, or how names begin and then *; repeat for more
    /// [default: the one of the member's name, and those below it]
    #[arg(long = "agents", value_name = "PATTERN")]
    agents: Vec<AgentPattern>,
    /// Id of the only node that may use the invitation [default: any that has the code]
    #[arg(long, value_name = "NODE", conflicts_with = "bulk")]
    node: Option<NodeId>,
}

/// Whom to invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) grants: Grants,
    /// The only node that may use the invitation.
    pub(super) node: Option<NodeId>,
}

impl Terms {
    /// To invite a member of this name.
    pub(super) fn wish(&self, name: NodeName) -> Wish {
        let roles = if self.roles.is_empty() { BTreeSet::from([Role::Robot]) } else { listed(&self.roles) };
        let scope = roles.contains(&Role::Issuer).then(|| Scope {
            roles: Role::ALL.into_iter().filter(|role| *role != Role::Issuer).collect(),
            name_prefix: None,
            life_ms_max: ISSUED_LIFE_MS,
            per_day: None,
        });
        let (capabilities, agents) = (listed(&self.capabilities), listed(&self.agents));
        Wish { grants: Grants { name, roles, capabilities, agents, scope }, node: self.node }
    }

    /// These terms, with what the cells of a line say in place of them.
    fn with(&self, cells: &BTreeMap<&str, &str>) -> Result<Self, String> {
        fn or<T: FromStr<Err: Display> + Clone>(cell: Option<&&str>, terms: &[T]) -> Result<Vec<T>, String> {
            let Some(cell) = cell.filter(|cell| !cell.is_empty()) else { return Ok(terms.to_vec()) };
            cell.split_whitespace().map(|one| one.parse::<T>().map_err(|error| format!("{one:?}: {error}"))).collect()
        }
        let node: Vec<NodeId> = or(cells.get("node"), &[])?;
        if node.len() > 1 {
            return Err("one node may use an invitation".to_owned());
        }
        Ok(Self {
            roles: or(cells.get("role"), &self.roles)?,
            capabilities: or(cells.get("can"), &self.capabilities)?,
            agents: or(cells.get("agents"), &self.agents)?,
            node: node.first().copied(),
        })
    }

    /// The wishes of a file: a first line that names its columns, then a line for each new member. Several values of
    /// one cell are separated by spaces. A cell that is empty has what the line of the command says.
    pub(super) fn of_file(&self, path: &Path) -> Result<Vec<Wish>, Failure> {
        let shown = path.display();
        let failed = |error: std::io::Error| Failure::failed(format!("{shown}: {error}"));
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(Failure::usage(format!("{shown}: it has more than {FILE_BYTES_MAX} bytes")));
        }
        self.of_lines(&text).map_err(|(line, why)| Failure::usage(format!("{shown}, line {line}: {why}")))
    }

    /// The wishes of a text; or the number of a line, and what is wrong with it.
    fn of_lines(&self, text: &str) -> Result<Vec<Wish>, (usize, String)> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (first, columns) = lines.next().ok_or_else(|| (1, names_no_columns()))?;
        let columns: Vec<&str> = columns.split(',').map(str::trim).collect();
        let known: BTreeSet<&str> = columns.iter().copied().filter(|name| COLUMNS.contains(name)).collect();
        if known.len() < columns.len() || !known.contains("name") {
            return Err((first, names_no_columns()));
        }
        let (mut wishes, mut names) = (Vec::new(), BTreeSet::new());
        for (number, line) in lines {
            let wish = self.of_line(&columns, line).map_err(|why| (number, why))?;
            if !names.insert(wish.grants.name.clone()) {
                return Err((number, format!("the name {} is there twice", wish.grants.name)));
            }
            if wishes.len() == limits::SITE_MEMBERS_MAX {
                return Err((number, format!("a site has at most {} members", limits::SITE_MEMBERS_MAX)));
            }
            wishes.push(wish);
        }
        Ok(wishes)
    }

    fn of_line(&self, columns: &[&str], line: &str) -> Result<Wish, String> {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() != columns.len() {
            return Err(format!("it has {} cells, and the first line names {} columns", cells.len(), columns.len()));
        }
        let cells: BTreeMap<&str, &str> = columns.iter().copied().zip(cells).collect();
        let name = cells.get("name").copied().unwrap_or_default();
        let name = NodeName::new(name).map_err(|error| error.to_string())?;
        Ok(self.with(&cells)?.wish(name))
    }
}

fn names_no_columns() -> String {
    format!("the first line names the columns: name, and any of {}, each once", COLUMNS[1..].join(", "))
}

fn listed<T: Ord + Clone>(these: &[T]) -> BTreeSet<T> {
    these.iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { roles: Vec::new(), capabilities: vec!["lift".parse().unwrap()], agents: Vec::new(), node: None }
    }

    #[test]
    fn each_line_of_a_file_is_an_invitation_and_an_empty_cell_has_what_the_options_say() {
        let text = "# the fleet\nname, role ,can\n\nrobot-1,,\nedge-2,voter agent,\nrobot-3,,haul scan\n";
        let wishes = terms().of_lines(text).unwrap();
        let shown = |wish: &Wish| {
            let Grants { name, roles, capabilities, .. } = &wish.grants;
            format!("{name} {roles:?} {capabilities:?}")
        };
        let shown: Vec<String> = wishes.iter().map(shown).collect();
        assert_eq!(
            shown,
            [r#"robot-1 {Robot} {"lift"}"#, r#"edge-2 {Agent, Voter} {"lift"}"#, r#"robot-3 {Robot} {"haul", "scan"}"#]
        );
        let node = NodeId::from_public_key([7; 32]);
        let one = terms().of_lines(&format!("node,name\n{node},robot-9\n")).unwrap();
        assert_eq!(one, [Wish { node: Some(node), ..terms().wish("robot-9".parse().unwrap()) }]);
        assert_eq!(terms().of_lines("name"), Ok(Vec::new()));
    }

    #[test]
    fn a_file_with_a_line_that_is_wrong_invites_nobody_and_the_line_is_named() {
        for (text, line) in [
            ("", 1),
            ("role\nrobot\n", 1),
            ("name,name\na,b\n", 1),
            ("name,colour\na,red\n", 1),
            ("name,role\nrobot-1\n", 2),
            ("name\nrobot-1\nrobot 2\n", 3),
            ("name\nrobot-1\n\nrobot-1\n", 4),
            ("name,role\nrobot-1,king\n", 2),
            ("name,agents\nrobot-1,a*b\n", 2),
            ("name,node\nrobot-1,abc\n", 2),
        ] {
            let (number, why) = terms().of_lines(text).unwrap_err();
            assert_eq!(number, line, "{text:?}: {why}");
        }
    }

    #[test]
    fn an_issuer_is_invited_with_what_it_may_issue_and_nobody_else_is() {
        let of = |role: Role| Terms { roles: vec![role], ..terms() }.wish("edge-2".parse().unwrap()).grants.scope;
        let scope = of(Role::Issuer).unwrap();
        assert!(scope.roles.contains(&Role::Robot) && !scope.roles.contains(&Role::Issuer));
        assert_eq!(of(Role::Voter), None);
    }
}
