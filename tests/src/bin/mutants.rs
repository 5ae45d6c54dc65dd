//! Seeds bugs, one at a time, and checks that the tests that should notice each of them do.
//!
//! One build carries all mutants; the environment of a test run says which one is on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Serialize;
use skep_protocol::mutant::Mutant;

/// How long the tests of one mutant may take.
const PATIENCE: Duration = Duration::from_secs(400);
/// How many seeds of the simulator look for a mutant.
const SEEDS: &str = "100";
/// How many seeds of whole sites look for one; all of them run before the test judges. Chance decides whether a mutant
/// that depends on addresses acts: every second or third seed meets it.
const SEEDS_OF_SITES: &str = "12";
/// How many seeds show that the test passes without a mutant.
const SEEDS_SOUND: &str = "4";

const SIMULATOR: Target = Target {
    package: "skep-tests",
    target: "simulator",
    test: "every_invariant_holds_whatever_goes_wrong_and_everything_comes_to_its_end",
};

const STOLEN_ROBOT: Target = Target {
    package: "skep-tests",
    target: "simulator",
    test: "a_stolen_robot_that_says_that_it_leads_takes_nothing_from_the_others",
};

/// One test of the workspace.
#[derive(Clone, Copy, Debug)]
struct Target {
    package: &'static str,
    /// The name of the test binary; for unit tests, that of the library.
    target: &'static str,
    test: &'static str,
}

impl Target {
    /// The name of a test binary of its own; none for the unit tests of a library.
    fn integration(self) -> Option<&'static str> {
        (self.target != self.package.replace('-', "_")).then_some(self.target)
    }
}

const fn of(package: &'static str, target: &'static str, test: &'static str) -> Target {
    Target { package, target, test }
}

/// The test that is to notice a mutant.
fn aimed_at(mutant: Mutant) -> Target {
    match mutant {
        Mutant::AckBeforeFsync | Mutant::VoteNotSynced | Mutant::NodeIdReused | Mutant::SnapshotWithoutMembership => {
            of("skep-consensus", "skep_consensus", "simulation::every_invariant_holds")
        }
        Mutant::RaftFromAnybody => of(
            "skep-consensus",
            "skep_consensus",
            "simulation::strangers::a_peer_that_votes_nowhere_has_no_part_in_raft",
        ),
        Mutant::LeaderNotProven => of(
            "skep-consensus",
            "skep_consensus",
            "simulation::strangers::a_stolen_voter_that_won_no_election_leads_nobody",
        ),
        Mutant::ClockTurnedBack => {
            of("skep-engine", "skep_engine", "a_clock_that_is_turned_back_makes_no_deadline_later")
        }
        Mutant::BegunIdsForgotten => {
            of("skep-engine", "skep_engine", "a_command_that_was_begun_is_not_begun_again_whoever_delivers_it")
        }
        Mutant::TermUnbounded => {
            of("skep-consensus", "skep_consensus", "a_term_after_which_there_is_none_is_not_taken")
        }
        Mutant::NonVotersCounted => {
            of("skep-consensus", "skep_consensus", "simulation::a_node_that_did_not_catch_up_is_not_counted")
        }
        Mutant::LeaderNeverLetsGo => {
            of("skep-consensus", "skep_consensus", "simulation::links::a_cut_that_is_not_transitive_leaves_a_leader")
        }
        Mutant::HeartbeatsCutOff => {
            of("skep-consensus", "skep_consensus", "simulation::links::a_site_works_whatever_the_round_trip")
        }
        Mutant::VotesCutOff => {
            of("skep-consensus", "skep_consensus", "simulation::links::a_leader_is_replaced_on_disks_that_take_seconds")
        }
        Mutant::VotesAskedWithoutPause => {
            of("skep-consensus", "skep_consensus", "simulation::laggards::voters_far_behind_ask_seldom_and_catch_up")
        }
        Mutant::AppendBudgetFixed => {
            of("skep-consensus", "skep_consensus", "simulation::links::a_follower_far_behind_catches_up_on_a_thin_link")
        }
        Mutant::JointLeftAlone => of(
            "skep-consensus",
            "skep_consensus",
            "simulation::members::a_change_of_voters_that_was_cut_off_is_finished",
        ),
        Mutant::RevertedVoterVotes => {
            of("skep-consensus", "skep_consensus", "simulation::copies::a_voter_that_was_restored_from_a_copy")
        }
        Mutant::RevokedStillServed => {
            of("skep-consensus", "skep_consensus", "net::certified::a_member_that_is_revoked_is_cut_off_and_stays_out")
        }
        Mutant::TwinReplaces => {
            of("skep-consensus", "skep_consensus", "of_two_processes_under_one_identity_the_first_stays")
        }
        Mutant::SnapshotStartsOver => {
            of("skep-consensus", "skep_consensus", "simulation::links::a_snapshot_goes_on_where_it_was_cut_off")
        }
        Mutant::FullLeaderStays => {
            of("skep-consensus", "skep_consensus", "simulation::disks::a_leader_on_a_full_disk_hands_the_lead")
        }
        Mutant::RaisedWithoutAllVoters | Mutant::LimitsFromBuild => of(
            "skep-consensus",
            "skep_consensus",
            "simulation::versions::a_shard_is_raised_once_its_last_voter_is_upgraded",
        ),
        Mutant::FirstSequenceNotChecked => {
            of("skep-consensus", "skep_consensus", "simulation::cuts::no_segment_can_be_cut_anywhere_without_notice")
        }
        Mutant::SnapshotBeforeDurable => of(
            "skep-consensus",
            "skep_consensus",
            "simulation::cuts::whatever_is_acknowledged_is_there_wherever_the_power_goes",
        ),
        Mutant::StaleReadCalledLinearizable => {
            of("skep-consensus", "skep_consensus", "simulation::a_leader_that_is_cut_off_answers_no_linearizable_read")
        }
        Mutant::FirstPullNotConfirmed => {
            of("skep-consensus", "skep_consensus", "simulation::pulls::a_leader_that_is_cut_off_hands_out_no_command")
        }
        Mutant::QuorumNotAwaited => {
            of("skep-fleet", "placement", "no_step_leaves_a_group_without_a_quorum_that_answers")
        }
        Mutant::StepsUndone => of("skep-fleet", "placement", "no_step_undoes_another_one_within_the_settle_time"),
        Mutant::WitnessLeads => of("skep-fleet", "placement", "a_witness_votes_and_never_leads"),
        Mutant::NoFenceAtStation => of("skep-testnet", "skep_testnet", "station::tests::the_world_refuses"),
        Mutant::LostUpdateForgotten => of("skep-fleet", "orchestrator", "an_update_whose_answer_was_lost"),
        Mutant::LetGoForgotten => of("skep-client", "skep_client", "what_the_software_let_go_of"),
        Mutant::VotersNotLearned => of("skep-engine", "skep_engine", "a_new_leader_is_reached_in_as_many_attempts"),
        Mutant::DeadConnectionKept => of("skep-mesh", "skep_mesh", "a_process_that_came_again_takes_the_place"),
        Mutant::LeaseFromReceipt => of("skep-engine", "skep_engine", "a_lease_is_counted_from_the_stamp"),
        Mutant::RenewalWithoutQuorum => of("skep-fleet", "orchestrator", "without_a_quorum_nothing_is_renewed"),
        Mutant::ExpiryWithoutMargin => of("skep-fleet", "orchestrator", "a_lease_that_is_not_renewed_ends_after"),
        Mutant::ClockFromLastEntry => of("skep-fleet", "skep_fleet", "a_node_that_heard_no_clock_has_no_estimate"),
        Mutant::ClockFromAnyFrame => of("skep-fleet", "skep_fleet", "a_first_clock_is_learned_in_one_short_round"),
        Mutant::ClockOfAnotherBoot => of("skep-store", "skep_store", "a_clock_that_was_left_is_taken_in_the_same"),
        Mutant::ClaimsEndWithTheEra => of("skep-fleet", "eras", "a_claim_outlives_a_lost_clock"),
        Mutant::SignatureNotChecked => of("skep-protocol", "skep_protocol", "an_operation_that_was_not_signed"),
        Mutant::GrantNotIntersected => of("skep-protocol", "skep_protocol", "nobody_grants_more_than_it_has"),
        Mutant::RevokedStillSends => of("skep-fleet", "operators", "a_revocation_voids_what_has_not_begun"),
        Mutant::GoBeforeIntent => of("skep-engine", "skep_engine", "a_command_is_written_down_offered_started"),
        Mutant::StartWithoutLease => {
            of("skep-engine", "skep_engine", "nothing_is_started_by_software_whose_lease_is_over")
        }
        Mutant::VoidBeforeWritten => of("skep-engine", "skep_engine", "a_node_that_dies_before_an_end_is_durable"),
        Mutant::JournalPressureIgnored => {
            of("skep-engine", "skep_engine", "nothing_is_begun_while_there_is_room_for_ends")
        }
        Mutant::OneOrderForAllClasses => of("skep-engine", "skep_engine", "an_urgent_command_behind_more_routine_ones"),
        Mutant::JournalNotSynced => of("skep-consensus", "skep_consensus", "what_a_journal_was_said_to_hold_survives"),
        Mutant::DeadlineFromWallClock => of("skep-tests", "clocks", "a_node_whose_wall_clock_jumps"),
        Mutant::ClockFromReceipt => of("skep-engine", "skep_engine", "an_answer_that_was_long_under_way"),
        Mutant::AbortIgnored => of("skep-fleet", "commands", "waves_are_let_out_by_entries"),
        Mutant::DoubtForgotten => of("skep-engine", "skep_engine", "doubt_is_sticky"),
        // The simulator meets a retry that matters too seldom.
        Mutant::RetryUnderNewId => of("skep-engine", "skep_engine", "work_under_way_at_a_deposed_leader"),
        // The simulator meets them too, in some of its seeds.
        Mutant::DedupInMemory => of("skep-fleet", "reference", "the_state_machine_does_what_the_naive_model_does"),
        Mutant::AgentForgottenAtWork => of("skep-fleet", "idle_agents", "an_agent_with_work_is_not_forgotten"),
        Mutant::AttachmentsStartAgain => of("skep-fleet", "idle_agents", "an_agent_that_comes_again_is_another_one"),
        Mutant::NoFenceInApply => of("skep-fleet", "tasks", "a_stale_epoch_or_another_holder_changes_nothing"),
        Mutant::NondeterministicApply => SIMULATOR,
        Mutant::StrangerBelieved => STOLEN_ROBOT,
        Mutant::InvitationUsedTwice => of("skep-fleet", "directory", "an_invitation_is_used_by_one_node"),
        Mutant::VoterRevokedInOffice => of("skep-fleet", "revocations", "a_voter_leaves_its_office_before_it_is_out"),
        Mutant::EpochNotChecked => of("skep-fleet", "directory", "a_certificate_of_an_epoch_that_is_over"),
        Mutant::HistoryNotAwaited => {
            of("skep-consensus", "skep_consensus", "a_snapshot_waits_until_what_it_covers_is_in_the_history")
        }
        Mutant::HistoryInMemoryOnly => of("skep-store", "skep_store", "what_is_said_to_be_kept_is_there_after_a_crash"),
        Mutant::LargeChangesLeftOut => {
            of("skep-store", "skep_store", "what_one_entry_did_is_kept_whole_however_large_it_is")
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Seed bugs and check that the tests notice. Ends with 1 if one is not noticed.
#[derive(Debug, Parser)]
struct Args {
    /// Names of the mutants to try; all if left out.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The form of the output.
    #[arg(short, long, default_value = "text")]
    output: Output,
}

/// The result of a run.
#[derive(Debug, Default, Serialize)]
struct Report {
    mutants: usize,
    killed: usize,
    /// By mutant: the test that noticed it, and what the test said.
    by: BTreeMap<&'static str, String>,
    survivors: Vec<&'static str>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("there is no mutant {unknown}; there are {}", names.join(", ")));
    }
    let chosen = |mutant: &&Mutant| args.only.is_empty() || args.only.iter().any(|name| name == mutant.name());
    let mutants: Vec<Mutant> = Mutant::ALL.iter().filter(chosen).copied().collect();
    let binaries = build()?;
    let mut report = Report { mutants: mutants.len(), ..Report::default() };
    // A test that fails without any mutant proves nothing.
    let mut sound = BTreeMap::new();
    for mutant in mutants {
        let target = aimed_at(mutant);
        let binary = binaries.get(&(target.package, target.target));
        let binary = binary.ok_or_else(|| format!("{}: {} was not built", target.package, target.target))?;
        if !*sound
            .entry((target.package, target.target, target.test))
            .or_insert_with(|| matches!(test(binary, target.test, None, None), Verdict::Passed))
        {
            return Err(format!("{} does not pass without a mutant, or is not there", target.test));
        }
        let begun = Instant::now();
        let verdict = test(binary, target.test, Some(mutant), None);
        let took = begun.elapsed().as_secs_f64();
        match verdict {
            Verdict::Failed { why, seed } => {
                // The seed that found the mutant finds nothing without it.
                if seed.is_some() && !matches!(test(binary, target.test, None, seed), Verdict::Passed) {
                    return Err(format!("{}: seed {seed:?} fails without a mutant too: {why}", target.test));
                }
                eprintln!("{:<32} killed in {took:.1} s by {}: {why}", mutant.name(), target.test);
                report.killed += 1;
                report.by.insert(mutant.name(), format!("{}: {why}", target.test));
            }
            Verdict::Passed | Verdict::Hung => {
                eprintln!("{:<32} SURVIVED {took:.1} s of {}", mutant.name(), target.test);
                report.survivors.push(mutant.name());
            }
            Verdict::NotRun => return Err(format!("{} cannot be run", target.test)),
        }
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&report).map_err(|e| e.to_string())?),
        Output::Text => println!("{} of {} mutants were noticed", report.killed, report.mutants),
    }
    Ok(if report.survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the tests with all mutants in them; returns the path of each test binary.
fn build() -> Result<BTreeMap<(&'static str, &'static str), String>, String> {
    let targets: BTreeSet<&str> =
        Mutant::ALL.iter().map(|mutant| aimed_at(*mutant)).filter_map(Target::integration).collect();
    // Features of the whole workspace, as in its tests: so its dependencies are not built again.
    let built = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--lib", "--no-run", "--locked", "--message-format=json"])
        .args(targets.iter().flat_map(|target| ["--test", target]))
        .args(["--features", "skep-protocol/mutants"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    if !built.status.success() {
        return Err("the tests cannot be built with mutants".to_owned());
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let binary = |target: Target| messages.lines().find_map(|line| executable(line, target));
    let targets = Mutant::ALL.iter().map(|mutant| aimed_at(*mutant));
    Ok(targets.filter_map(|target| Some(((target.package, target.target), binary(target)?))).collect())
}

/// Tests of several packages may have the same name.
fn executable(line: &str, target: Target) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let is_of = message["package_id"].as_str().is_some_and(|id| id.contains(&format!("#{}@", target.package)));
    let is_named = message["target"]["name"].as_str() == Some(target.target);
    message["executable"].as_str().filter(|_| is_of && is_named).map(str::to_owned)
}

enum Verdict {
    Passed,
    /// What the test said, and the seed that it named.
    Failed {
        why: String,
        seed: Option<u64>,
    },
    /// The test did not end in time.
    Hung,
    NotRun,
}

/// Runs one test, with one mutant or none, from the first seed on or with one seed alone.
fn test(binary: &str, test: &str, mutant: Option<Mutant>, seed: Option<u64>) -> Verdict {
    let of_sites = [SIMULATOR.test, STOLEN_ROBOT.test].contains(&test);
    let seeds = match mutant {
        None => SEEDS_SOUND,
        Some(_) if of_sites => SEEDS_OF_SITES,
        Some(_) => SEEDS,
    };
    let (from, seeds) = seed.map_or(("1".to_owned(), seeds), |seed| (seed.to_string(), "1"));
    let mut command = Command::new(binary);
    command.arg(test).env("SKEP_SIM_FROM", from).env("SKEP_SIM_SEEDS", seeds);
    command.env("RUST_BACKTRACE", "0").env_remove("SKEP_MUTANT");
    // A case that fails because of a mutant is no regression, and does not belong among the sources.
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    if let Some(mutant) = mutant {
        command.env("SKEP_MUTANT", mutant.name());
    }
    let Ok(output) = tempfile::NamedTempFile::new() else { return Verdict::NotRun };
    let Ok(out) = output.reopen() else { return Verdict::NotRun };
    let Ok(err) = out.try_clone() else { return Verdict::NotRun };
    let Ok(mut child) = command.stdout(out).stderr(err).spawn() else { return Verdict::NotRun };
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let hung = matches!(child.try_wait(), Ok(None));
    let _ = child.kill();
    let Ok(status) = child.wait() else { return Verdict::NotRun };
    let text = std::fs::read(output.path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match text {
        _ if hung => Verdict::Hung,
        Ok(text) if text.contains("running 0 tests") => Verdict::NotRun,
        Ok(_) if status.success() => Verdict::Passed,
        Ok(text) => Verdict::Failed { why: reason(&text), seed: named_seed(&text) },
        Err(_) => Verdict::NotRun,
    }
}

/// The seed that a failing test names.
fn named_seed(text: &str) -> Option<u64> {
    let after = |mark: &str| text.split(mark).nth(1).map(|rest| rest.trim_start().to_owned());
    let rest = after("\nseed ").or_else(|| after(" seed: "))?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// What a failing test said, in one line.
fn reason(text: &str) -> String {
    let said = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or("it failed");
    let what = text.lines().find_map(|line| line.trim().strip_prefix("invariant: "));
    let detail = text.lines().find_map(|line| line.trim().strip_prefix("what: "));
    match (what, detail) {
        (Some(invariant), Some(detail)) => format!("{invariant} {detail}"),
        _ => said.chars().take(160).collect(),
    }
}
