//! Whole sites in virtual time: a few seeds here, a hundred in `.ci/run`, as many more that follow from the commit, and
//! any number with `cargo run -p skep-tests --release --bin sim`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use skep_tests::sim::{self, Campaign, CampaignOptions, Coverage, Lies, Scale};

fn asked_for(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How many seeds to run; the runner of mutants asks for others.
fn seeds() -> u64 {
    asked_for("SKEP_SIM_SEEDS", 12)
}

/// The first seed.
fn first() -> u64 {
    asked_for("SKEP_SIM_FROM", 1)
}

#[test]
fn every_invariant_holds_whatever_goes_wrong_and_everything_comes_to_its_end() {
    let options = CampaignOptions { from: first(), seeds: seeds(), scale: Scale::default(), progress: None };
    let campaign = Campaign::run(&options, |so_far| assert_eq!(so_far.violations, [])).unwrap();
    assert_eq!(campaign.violations, []);
    assert_eq!(campaign.seeds, seeds());
    let coverage = &campaign.coverage;
    assert!(
        seeds() == 1 || coverage.claims > 100 && coverage.elections > 10 && coverage.commands_begun > 100,
        "{coverage:?}"
    );
}

/// Two seeds: leaders that announce themselves to all, and leaders that are found by asking.
#[test]
fn hosts_that_do_not_vote_follow_each_new_leader_within_a_few_attempts_however_many_they_are() {
    let scale = Scale { hosts: Some(200), ..Scale::default() };
    let options = CampaignOptions { from: 1, seeds: 2, scale, progress: None };
    let campaign = Campaign::run(&options, |_| {}).unwrap();
    assert_eq!(campaign.violations, []);
    let coverage = &campaign.coverage;
    // Three leaders are killed in each run.
    assert!(coverage.crashes == 6 && coverage.elections >= 8 && coverage.completions >= 60, "{coverage:?}");
}

/// Runs in each of which a host lies.
fn lied_to(lies: Lies) -> Coverage {
    let (seeds, scale) = (asked_for("SKEP_SIM_SEEDS", 4), Scale { lies: Some(lies), ..Scale::default() });
    let options = CampaignOptions { from: first(), seeds, scale, progress: None };
    let campaign = Campaign::run(&options, |so_far| assert_eq!(so_far.violations, [])).unwrap();
    assert_eq!((campaign.violations, campaign.seeds), (vec![], seeds));
    campaign.coverage
}

#[test]
fn a_stolen_robot_that_says_that_it_leads_takes_nothing_from_the_others() {
    let coverage = lied_to(Lies::Robot);
    assert!(coverage.stolen_robots > 0 && coverage.commands_begun > 0 && coverage.completions > 0, "{coverage:?}");
}

#[test]
fn a_voter_that_lies_has_nothing_begun_again_or_late_or_that_nobody_signed() {
    let coverage = lied_to(Lies::Voter);
    assert!(coverage.lying_voters > 0 && coverage.commands_begun > 0, "{coverage:?}");
    let again = coverage.commands_delivered_again > 0 && coverage.clocks_turned_back > 0;
    assert!(seeds() == 1 || coverage.lies > 0 && again, "{coverage:?}");
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let run = |seed| sim::run(seed, Scale::default(), None);
    let (one, other) = (run(3), run(3));
    assert_eq!((one.coverage, one.virtual_ms), (other.coverage, other.virtual_ms));
    assert_ne!(run(4).virtual_ms, one.virtual_ms);
}

#[test]
fn a_campaign_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let progress = Some(dir.path().join("progress.json"));
    let scale = Scale { robots: Some(20), ..Scale::default() };
    let part = |seeds| CampaignOptions { from: 1, seeds, scale, progress: progress.clone() };
    Campaign::run(&part(2), |_| {}).unwrap();
    let went_on = Campaign::run(&part(3), |_| {}).unwrap();
    let at_once = Campaign::run(&CampaignOptions { progress: None, ..part(3) }, |_| {}).unwrap();
    assert_eq!(went_on, at_once);
    let other = CampaignOptions { from: 2, ..part(3) };
    assert!(Campaign::run(&other, |_| {}).unwrap_err().to_string().contains("is of a campaign from seed 1"));
    let other = CampaignOptions { scale: Scale::default(), ..part(3) };
    assert!(Campaign::run(&other, |_| {}).unwrap_err().to_string().contains("with 20 robots"));
}
