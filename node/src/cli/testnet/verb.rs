//! The verbs for a testnet that is up: each asks it for what it is called.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, Error, FromArgMatches, Subcommand};
use skep_testnet::scenario::up::TestnetVerb;

/// A verb as it is given on the command line.
#[derive(Debug)]
pub(crate) struct Given(pub(super) TestnetVerb);

/// Each verb, whether it is for one process, and its help.
const VERBS: [(&str, bool, &str); 6] = [
    ("status", false, "List the processes of the testnet that is up"),
    ("kill", true, "Kill a process with SIGKILL"),
    ("pause", true, "Suspend a process with SIGSTOP"),
    ("resume", true, "Resume a suspended process"),
    ("restart", true, "Restart a process, with SIGKILL if it runs"),
    ("down", false, "End all processes. What they stored stays for the next 'up'"),
];

/// The argument that names the process.
const NAME: &str = "name";

fn command((verb, of_process, about): (&'static str, bool, &'static str)) -> Command {
    let name = Arg::new(NAME).value_name("NAME").required(true);
    let name = name.help("Name of the process, as 'skep testnet status' prints it");
    let command = Command::new(verb).about(about);
    if of_process { command.arg(name) } else { command }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (verb, given) = matches.subcommand().ok_or_else(|| Error::new(ErrorKind::MissingSubcommand))?;
        let name = given.try_get_one::<String>(NAME).ok().flatten();
        let parsed = serde_json::from_value(serde_json::json!({ "do": verb, "name": name }));
        parsed.map(Self).map_err(|error| Error::raw(ErrorKind::InvalidSubcommand, error))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Subcommand for Given {
    fn augment_subcommands(testnet: Command) -> Command {
        testnet.subcommands(VERBS.map(command))
    }

    fn augment_subcommands_for_update(testnet: Command) -> Command {
        Self::augment_subcommands(testnet)
    }

    fn has_subcommand(name: &str) -> bool {
        VERBS.iter().any(|(verb, ..)| *verb == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_is_the_order_of_its_name() {
        for (verb, of_process, _) in VERBS {
            assert!(Given::has_subcommand(verb));
            let line = ["testnet", verb].into_iter().chain(of_process.then_some("n1"));
            let matches = Given::augment_subcommands(Command::new("testnet")).try_get_matches_from(line).unwrap();
            let told = serde_json::to_value(Given::from_arg_matches(&matches).unwrap().0).unwrap();
            assert_eq!((told["do"].as_str(), told["name"].as_str()), (Some(verb), of_process.then_some("n1")));
        }
    }
}
