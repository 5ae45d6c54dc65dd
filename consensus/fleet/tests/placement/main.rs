//! The choice of voters, in worlds that go wrong at random, and in small ones of which all is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod site;

use std::collections::{BTreeMap, BTreeSet};

use site::{Machine, Rng, Site, TICK_MS, Taken, index, node};
use skep_fleet::placement::{Mode, PlacementConfig, Power, Seat, Step, Vote, Wanted, Why};

/// Ticks of three hours.
const HOURS: usize = 3 * 3_600_000 / TICK_MS as usize;

/// A site in which things went wrong at random for hours.
fn storm(seed: u64) -> (Site, Rng) {
    let mut rng = Rng(seed);
    let mut site = Site::random(seed, &mut rng);
    for _ in 0..200 + rng.below(600) {
        site.shake(&mut rng);
        site.tick();
    }
    (site, rng)
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::AddLearner(_) => "learner",
        Step::Promote(_) => "vote",
        Step::Remove(_) => "leaves",
        Step::Replace { .. } => "replaced",
        Step::TransferLead(_) => "lead",
        Step::Nothing => "nothing",
    }
}

fn comes(step: &Step) -> Vec<Seat> {
    match step {
        Step::AddLearner(seat) | Step::Replace { into: seat, .. } => vec![*seat],
        Step::Promote(seats) => seats.clone(),
        Step::Remove(_) | Step::TransferLead(_) | Step::Nothing => Vec::new(),
    }
}

fn goes(step: &Step) -> Vec<Seat> {
    match step {
        Step::Remove(seats) => seats.clone(),
        Step::Replace { out, .. } => vec![*out],
        Step::AddLearner(_) | Step::Promote(_) | Step::TransferLead(_) | Step::Nothing => Vec::new(),
    }
}

fn machines(domains: &[u8]) -> Vec<Machine> {
    domains.iter().map(|domain| Machine::new(*domain)).collect()
}

fn config() -> PlacementConfig {
    PlacementConfig::default()
}

/// A site of these machines that has found its voters.
fn settled(machines: Vec<Machine>) -> Site {
    let mut site = Site::new(0, config(), machines);
    pass(&mut site, HOURS);
    site
}

/// Lets time pass; returns the steps that were taken in it.
fn pass(site: &mut Site, ticks: usize) -> Vec<Step> {
    (0..ticks).filter_map(|_| site.tick()).map(|advice| advice.step).collect()
}

fn voters(site: &Site) -> BTreeSet<usize> {
    site.voters.iter().map(|seat| index(seat.node)).collect()
}

/// A voter that does not lead.
fn follower(site: &Site) -> usize {
    let seat = site.voters.iter().find(|seat| Some(**seat) != site.leader).unwrap();
    index(seat.node)
}

/// A machine that does not vote.
fn spare(site: &Site) -> usize {
    (0..site.machines.len()).find(|at| !voters(site).contains(at)).unwrap()
}

/// The machines that could vote at present, as the leader sees them.
fn able(site: &Site) -> Vec<usize> {
    let Some(leader) = site.leader.map(|leader| index(leader.node)) else { return Vec::new() };
    let is_able = |at: &usize| {
        let machine = &site.machines[*at];
        let is_cut = site.cuts.contains(&(leader.min(*at), leader.max(*at))) && leader != *at;
        machine.up && machine.may_vote && machine.vote == Vote::Full && !machine.thin && !is_cut
    };
    (0..site.machines.len()).filter(is_able).collect()
}

#[test]
fn no_step_leaves_a_group_without_a_quorum_that_answers() {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 1..=100 {
        let (site, _) = storm(seed);
        for taken in &site.steps {
            *kinds.entry(kind(&taken.advice.step)).or_default() += 1;
        }
    }
    // The world judges each step as it is taken: a kind that is hardly met would not be judged.
    for kind in ["learner", "vote", "leaves", "replaced", "lead"] {
        assert!(kinds.get(kind).is_some_and(|count| *count >= 10), "{kind}: {kinds:?}");
    }
}

#[test]
fn no_step_undoes_another_one_within_the_settle_time() {
    for seed in 1..=100 {
        let (site, _) = storm(seed);
        for (n, Taken { at, advice, gone }) in site.steps.iter().enumerate() {
            let recent = site.steps[..n].iter().filter(|before| at - before.at < site.config.settle_ms);
            for before in recent {
                let (went, came) = (goes(&before.advice.step), comes(&before.advice.step));
                let returns = comes(&advice.step).iter().any(|seat| went.contains(seat));
                // A seat that never answers again, or may not vote, goes at once.
                let leaves = goes(&advice.step).iter().any(|seat| came.contains(seat) && !gone.contains(seat));
                assert!(!returns && !leaves, "seed {seed}: {advice:?} after {:?}", before.advice);
            }
        }
    }
}

#[test]
fn once_the_world_is_quiet_it_finds_its_voters_and_changes_them_no_more() {
    for seed in 1..=60 {
        let (mut site, mut rng) = storm(seed);
        site.calm(&mut rng);
        if site.is_lost() {
            continue;
        }
        pass(&mut site, HOURS);
        let late = pass(&mut site, 500);
        let leader = site.leader.map(|leader| index(leader.node));
        if leader.is_none_or(|leader| !site.machines[leader].may_vote) {
            // The only voter that a majority hears may not lead: it tries to hand on the lead for as long as it does.
            assert!(late.iter().all(|step| matches!(step, Step::TransferLead(_))), "seed {seed}: {late:?}");
            continue;
        }
        assert_eq!(late, [], "seed {seed}: {:?}", site.last);
        let able = able(&site);
        let domains: BTreeSet<u8> = able.iter().map(|at| site.machines[*at].domain).collect();
        let least = match (site.config.wanted, able.len(), domains.len()) {
            (Wanted::Five, 5.., 3..) => 5,
            (Wanted::Three | Wanted::Five, 3.., _) => 3,
            (Wanted::Three | Wanted::Five, ..) => 1,
        };
        let count = site.voters.len();
        assert!(count >= least && count <= 5, "seed {seed}: {count} voters of {able:?}: {:?}", site.last);
        assert!(!count.is_multiple_of(2) || site.last != Some(Why::Settled(count)), "seed {seed}: {count} voters");
    }
}

#[test]
fn a_small_site_says_what_it_bears() {
    let site = settled(machines(&[0]));
    assert_eq!((site.voters.len(), site.last), (1, Some(Why::OneVoter)));
    assert!(Why::OneVoter.to_string().contains("no failover"));
    let site = settled(machines(&[0, 1]));
    assert_eq!((site.voters.len(), site.learners.len()), (1, 1));
    assert_eq!(site.last, Some(Why::OneVoterAndLearner(node(1))));
    assert!(Why::OneVoterAndLearner(node(1)).to_string().contains("no failover"));
    let site = settled(machines(&[0, 1, 2]));
    assert_eq!((site.voters.len(), site.learners.len(), site.last), (3, 0, Some(Why::Settled(3))));
}

#[test]
fn a_shard_has_five_voters_if_five_nodes_are_in_three_failure_domains() {
    assert_eq!(settled(machines(&[0, 1, 2, 0, 1])).voters.len(), 5);
    assert_eq!(settled(machines(&[0, 1, 1, 0, 1])).voters.len(), 3);
    let four = settled(machines(&[0, 0, 0, 1]));
    assert!(voters(&four).contains(&3), "the only one in another failure domain: {:?}", four.voters);
}

#[test]
fn voters_come_in_pairs_so_that_two_never_stand_alone() {
    let mut site = Site::new(0, config(), machines(&[0, 1, 2, 3, 4]));
    for _ in 0..HOURS {
        site.tick();
        assert!([1, 3, 5].contains(&site.voters.len()), "{:?}", site.voters);
    }
    assert_eq!(site.voters.len(), 5);
}

#[test]
fn a_witness_votes_and_never_leads() {
    let mut three = machines(&[0, 1, 2]);
    three[2].vote = Vote::Witness;
    // The witness leads least.
    (three[0].leads, three[1].leads) = (3, 3);
    let mut site = settled(three);
    assert_eq!((voters(&site), site.last), (BTreeSet::from([0, 1, 2]), Some(Why::Settled(3))));
    let leader = index(site.leader.unwrap().node);
    assert_ne!(leader, 2);
    site.machines[leader].up = false;
    pass(&mut site, HOURS);
    assert_eq!(
        site.leader.map(|seat| index(seat.node)),
        Some(1 - leader),
        "the other one leads, by the witness's vote"
    );
    let mut alone = machines(&[0, 1]);
    alone[1].vote = Vote::Witness;
    assert_eq!(settled(alone).voters.len(), 1, "a witness adds nothing to one voter");
}

#[test]
fn a_dead_voter_is_replaced_after_its_time_and_is_a_spare_when_it_returns() {
    let mut site = settled(machines(&[0, 0, 0, 0]));
    let (dead, heir) = (follower(&site), spare(&site));
    site.machines[dead].up = false;
    let patience = (config().dead_for_ms / TICK_MS) as usize;
    assert_eq!(pass(&mut site, patience), [], "it may come back");
    let (out, into) = (site.seat(dead), site.seat(heir));
    assert_eq!(pass(&mut site, 20), [Step::AddLearner(into), Step::Replace { out, into }]);
    site.machines[dead].up = true;
    assert_eq!(pass(&mut site, HOURS), [], "nothing is won by taking it back");
}

#[test]
fn a_dead_voter_without_a_spare_is_kept_and_named() {
    let mut site = settled(machines(&[0, 1, 2]));
    let dead = follower(&site);
    site.machines[dead].up = false;
    assert_eq!(pass(&mut site, HOURS), []);
    assert_eq!(site.last, Some(Why::NoSpare(node(dead))));
    site.machines[dead].up = true;
    assert_eq!(pass(&mut site, HOURS), []);
    assert_eq!(site.last, Some(Why::Settled(3)));
}

#[test]
fn a_voter_that_lost_its_disk_takes_its_own_place() {
    let mut site = settled(machines(&[0, 1, 2, 0]));
    let wiped = follower(&site);
    let out = site.seat(wiped);
    let now = site.now;
    site.machines[wiped].wipe(now);
    let into = site.seat(wiped);
    let steps = pass(&mut site, HOURS);
    assert_eq!(steps, [Step::AddLearner(into), Step::Replace { out, into }]);
}

#[test]
fn a_voter_that_may_not_vote_leaves_at_once_and_a_leader_hands_on_the_lead_first() {
    let mut site = settled(machines(&[0, 1, 2, 0]));
    let barred = follower(&site);
    site.machines[barred].may_vote = false;
    assert_eq!(pass(&mut site, 1), [Step::Remove(vec![site.seat(barred)])]);
    pass(&mut site, HOURS);
    assert_eq!(site.voters.len(), 3, "a spare votes in its place");
    let leader = index(site.leader.unwrap().node);
    site.machines[leader].may_vote = false;
    let steps = pass(&mut site, 3);
    assert!(matches!(steps[..], [Step::TransferLead(_), Step::Remove(_)]), "{steps:?}");
    assert!(!voters(&site).contains(&leader));
}

#[test]
fn a_battery_that_swings_changes_nothing() {
    let mut robots = machines(&[0, 0, 0, 0, 0]);
    for robot in &mut robots {
        robot.power = Power::Battery { percent: 80 };
    }
    let mut site = settled(robots);
    let mut rng = Rng(7);
    for _ in 0..HOURS {
        for robot in &mut site.machines {
            robot.power = Power::Battery { percent: rng.below(101) as u8 };
        }
        assert_eq!(site.tick().map(|advice| advice.step), None);
    }
}

#[test]
fn a_node_on_mains_takes_the_place_of_one_on_a_battery_once() {
    let mut four = machines(&[0, 0, 0, 0]);
    four[0].power = Power::Battery { percent: 100 };
    let mut site = settled(four);
    assert_eq!(voters(&site), BTreeSet::from([1, 2, 3]));
    assert_eq!(pass(&mut site, HOURS), []);
}

#[test]
fn a_voter_that_is_thin_for_hours_is_replaced_once() {
    let mut site = settled(machines(&[0, 0, 0, 0]));
    let (thin, heir) = (follower(&site), spare(&site));
    site.machines[thin].thin = true;
    let (out, into) = (site.seat(thin), site.seat(heir));
    assert_eq!(pass(&mut site, HOURS), [Step::AddLearner(into), Step::Replace { out, into }]);
    assert_eq!(pass(&mut site, HOURS), []);
}

#[test]
fn a_spare_that_does_not_catch_up_is_tried_once() {
    let mut site = settled(machines(&[0, 0, 0]));
    // By its failure domain it would be a better voter.
    let mut better = Machine::new(1);
    better.thin = true;
    site.machines.push(better);
    let late = site.seat(3);
    assert_eq!(pass(&mut site, HOURS), [Step::AddLearner(late), Step::Remove(vec![late])]);
    assert_eq!(pass(&mut site, HOURS), []);
}

#[test]
fn a_site_that_starts_again_as_a_whole_keeps_its_voters() {
    let mut site = settled(machines(&[0, 1, 2, 3, 4, 0]));
    let before = voters(&site);
    site.leader = None;
    assert_eq!(pass(&mut site, HOURS), []);
    assert_eq!(voters(&site), before);
}

#[test]
fn a_node_that_only_others_reach_is_replaced_once() {
    let mut site = settled(machines(&[0, 0, 0, 0]));
    let (leader, cut) = (index(site.leader.unwrap().node), follower(&site));
    site.cuts.insert((leader.min(cut), leader.max(cut)));
    let steps = pass(&mut site, HOURS);
    assert!(matches!(steps[..], [Step::AddLearner(_), Step::Replace { .. }]), "{steps:?}");
    assert_eq!(pass(&mut site, HOURS), []);
}

#[test]
fn while_an_operator_chooses_nothing_is_done() {
    let mut site = Site::new(0, config(), machines(&[0, 1, 2]));
    site.mode = Mode::Manual;
    assert_eq!(pass(&mut site, HOURS), []);
    assert_eq!(site.last, Some(Why::Manual));
    site.mode = Mode::Auto;
    pass(&mut site, HOURS);
    assert_eq!(site.voters.len(), 3);
}

#[test]
fn leads_go_to_voters_that_lead_less() {
    let mut three = machines(&[0, 1, 2]);
    three[0].leads = 3;
    three[1].leads = 1;
    let mut site = settled(three);
    assert_eq!(site.leader.map(|seat| index(seat.node)), Some(2));
    assert_eq!(pass(&mut site, HOURS), []);
}
