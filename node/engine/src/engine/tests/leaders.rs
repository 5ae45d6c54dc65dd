//! A node that does not vote finds whoever leads.

use skep_protocol::heartbeat::{Heartbeat, HeartbeatFailure, HeartbeatReply};
use skep_protocol::leader::Voters;
use skep_protocol::query::{Answer, AsOf, Counts, QueryFailure, QueryReply};

use super::*;

/// Where this node is, and how many others there are at most.
const HERE: u8 = 1;
const OTHERS: u8 = 200;

/// A site as one node meets it: who votes, who leads in which term, and who is dead.
struct Site {
    engine: Engine,
    voters: Vec<u8>,
    leader: Option<u8>,
    term: u64,
    dead: Vec<u8>,
    /// What those who do not vote say.
    hearsay: LeaderHint,
    now_ms: u64,
    asked: Vec<u8>,
}

impl Site {
    /// A node that has learned who votes among so many others from the answer of a leader. At first it knows those who are marked.
    fn with_others(others: u8, voters: [u8; 3]) -> Self {
        let marked = voters.iter().copied().map(node).collect();
        let mut engine = Engine::new(node(HERE), SiteName::new("s").unwrap(), CONFIG).believing(marked);
        engine.handle(Event::Peers { up: (2..=others + 1).map(node).collect() }, 0);
        let (leader, hearsay) = (Some(voters[1]), LeaderHint::default());
        let (dead, asked) = (Vec::new(), Vec::new());
        let mut site = Self { engine, voters: voters.to_vec(), leader, term: 5, dead, hearsay, now_ms: 0, asked };
        site.beat(60_000);
        assert_eq!(site.asked.last(), Some(&voters[1]), "it is found at first");
        site.asked.clear();
        site
    }

    fn hint(&self) -> LeaderHint {
        let voters = Voters::of(self.voters.iter().copied().map(node));
        LeaderHint { leader: self.leader.map(node), term: self.term, voters }
    }

    /// Who leads from now on; whoever did is dead.
    fn fail_over(&mut self, to: u8) {
        self.dead.extend(self.leader);
        (self.leader, self.term) = (Some(to), self.term + 1);
    }

    /// What a peer answers to a heartbeat or a query; nothing if it is dead.
    fn answer(&self, by: u8, work: &Work) -> Option<Outcome> {
        if self.dead.contains(&by) {
            return None;
        }
        let hint = if self.voters.contains(&by) { self.hint() } else { self.hearsay.clone() };
        let leads = self.leader == Some(by);
        Some(match work {
            Work::Heartbeat(_) if leads => {
                Outcome::Heartbeat(Ok(HeartbeatReply { lead: hint, ..HeartbeatReply::default() }))
            }
            Work::Heartbeat(_) => Outcome::Heartbeat(Err(HeartbeatFailure::NotLeader(hint.elsewhere(node(by))))),
            Work::Query(_) if leads => {
                let answer = Answer::Counts(Counts::default());
                Outcome::Query(Ok(QueryReply { as_of: AsOf::default(), answer }))
            }
            _ => Outcome::Query(Err(QueryFailure::NotLeader(hint.elsewhere(node(by))))),
        })
    }

    /// Carries out what there is; whether the work is answered.
    fn carry_out(&mut self) -> Option<Settled> {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Attempt { key, attempt, target: AttemptTarget::Node(to), work, .. } => {
                    let to = to.public_key()[0];
                    self.asked.push(to);
                    if let Some(outcome) = self.answer(to, &work) {
                        self.engine.handle(Event::Outcome { key, attempt, outcome }, self.now_ms);
                    }
                }
                Effect::Answer { key: KEY, settled } => return Some(settled),
                _ => {}
            }
        }
        None
    }

    /// Submits work and lets time pass until it is answered.
    fn do_work(&mut self, work: Work, patience_ms: u64) -> Settled {
        self.engine.handle(Event::Submit { key: KEY, shard: SHARD, work, patience_ms }, self.now_ms);
        for _ in 0..10_000 {
            if let Some(settled) = self.carry_out() {
                return settled;
            }
            self.now_ms = self.engine.poll_timeout().expect("work that waits has a timer").max(self.now_ms);
            self.engine.handle_timeout(self.now_ms);
        }
        panic!("no answer");
    }

    fn beat(&mut self, patience_ms: u64) {
        let settled = self.do_work(Work::Heartbeat(Heartbeat::default()), patience_ms);
        assert!(matches!(settled, Settled::Heard(_)), "{settled:?}");
    }

    fn says_it_leads(&mut self, by: u8, term: u64) {
        let voters = Voters::of(self.voters.iter().copied().map(node));
        let hint = LeaderHint { leader: Some(node(by)), term, voters };
        self.engine.handle(Event::Leads { shard: SHARD, by: node(by), hint }, self.now_ms);
    }
}

#[test]
fn a_new_leader_is_reached_in_as_many_attempts_however_many_peers_there_are() {
    for others in [10, 50, OTHERS] {
        let mut site = Site::with_others(others, [4, 6, 8]);
        site.fail_over(4);
        site.do_work(Work::Query(Query::Counts), 60_000);
        // The one who led, another voter, and whoever that one names.
        assert_eq!(site.asked, [6, 8, 4], "{others} others");
    }
}

#[test]
fn voters_that_were_all_replaced_meanwhile_trap_nobody() {
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    // The old ones are there, vote no more, and know of nobody else: those who are marked have their turns.
    (site.voters, site.leader, site.term) = (vec![104, 106, 108], Some(106), 9);
    site.engine.router.mark([104, 106, 108].map(node).into());
    site.do_work(Work::Query(Query::Counts), 600_000);
    assert_eq!(site.asked.last(), Some(&106));
    assert!(site.asked.len() <= 9, "{:?}", site.asked);
    // One of the old ones has spoken with the new ones: that is enough, whoever is marked.
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    (site.voters, site.leader, site.term) = (vec![104, 106, 108], Some(106), 9);
    site.hearsay = site.hint();
    site.do_work(Work::Query(Query::Counts), 600_000);
    assert!(site.asked.len() <= 3, "{:?}", site.asked);
}

#[test]
fn a_word_of_an_earlier_term_is_not_followed() {
    let mut engine = engine();
    submit(&mut engine, 0);
    let names = |leader: u8, term: u64| {
        ProposeOutcome::NotLeader(LeaderHint { leader: Some(node(leader)), term, ..LeaderHint::default() })
    };
    outcome(&mut engine, 1, names(3, 5), 1);
    outcome(&mut engine, 2, done(), 2);
    submit(&mut engine, 3);
    effects(&mut engine);
    outcome(&mut engine, 1, names(2, 4), 4);
    assert_eq!(attempts(&effects(&mut engine)), [], "the one who was asked led later than that");
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    site.fail_over(8);
    site.says_it_leads(99, 4);
    site.do_work(Work::Query(Query::Counts), 60_000);
    assert_eq!(site.asked, [6, 8]);
}

#[test]
fn whoever_says_that_it_leads_is_the_next_one_asked_and_work_under_way_elsewhere_moves_there() {
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    site.fail_over(8);
    let work = Work::Query(Query::Counts);
    site.engine.handle(Event::Submit { key: KEY, shard: SHARD, work, patience_ms: 5_000 }, site.now_ms);
    assert_eq!(site.carry_out(), None, "the one who led does not answer");
    site.says_it_leads(8, 6);
    assert!(matches!(site.carry_out(), Some(Settled::Read(_))), "no time has passed");
    assert_eq!(site.asked, [6, 8]);
}

#[test]
fn whoever_says_that_it_leads_and_does_not_is_asked_once_and_believed_in_nothing() {
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    // A voter, which does not lead.
    site.says_it_leads(8, u64::MAX);
    site.beat(60_000);
    assert_eq!(site.asked, [8, 6]);
    // It hides nobody who comes after it.
    site.fail_over(4);
    site.says_it_leads(4, 6);
    site.asked.clear();
    site.beat(60_000);
    assert_eq!(site.asked, [4]);
}

#[test]
fn nobody_asks_or_hears_a_peer_that_neither_votes_nor_is_marked() {
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    site.says_it_leads(99, 6);
    site.beat(60_000);
    assert_eq!(site.asked, [6], "it says that it leads, in the next term");
    // Nobody leads: a peer that is listed would answer as a leader does, and is not asked.
    site.asked.clear();
    (site.leader, site.dead) = (Some(99), vec![4, 6, 8]);
    let settled = site.do_work(Work::Query(Query::Counts), 60_000);
    assert!(matches!(settled, Settled::NotDone(NotDone::NoQuorum)), "{settled:?}");
    assert!(site.asked.iter().all(|asked| [4, 6, 8].contains(asked)), "{:?}", site.asked);
    // A voter names it, and does not say that it votes.
    let mut site = Site::with_others(OTHERS, [4, 6, 8]);
    (site.leader, site.term) = (Some(99), 7);
    site.do_work(Work::Query(Query::Counts), 60_000);
    assert!(!site.asked.contains(&99), "{:?}", site.asked);
}

#[test]
fn a_node_for_which_nobody_is_marked_asks_nobody() {
    let mut engine = Engine::new(node(1), SiteName::new("s").unwrap(), CONFIG);
    engine.handle(Event::Peers { up: [node(2), node(3)].into() }, 0);
    submit(&mut engine, 0);
    assert_eq!(attempts(&effects(&mut engine)), []);
    let (settled, _) = run_out(&mut engine, 0);
    assert!(matches!(settled, Settled::NotDone(NotDone::NoQuorum)), "{settled:?}");
}

#[test]
fn what_was_proved_is_told_to_others_and_what_was_heard_is_not() {
    let knows = |engine: &mut Engine| {
        let hint = |effect: Effect| match effect {
            Effect::Knows { hint, .. } => Some(hint),
            _ => None,
        };
        std::iter::from_fn(|| engine.poll_effect()).filter_map(hint).last()
    };
    let mut engine = engine();
    submit(&mut engine, 0);
    let told = LeaderHint { leader: Some(node(3)), term: 7, voters: Voters::of([node(2), node(3)]) };
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(told.clone()), 1);
    assert_eq!(knows(&mut engine).map(|hint| hint.leader), Some(None), "nobody has answered yet");
    outcome(&mut engine, 2, done(), 2);
    assert_eq!(knows(&mut engine), Some(told));
}

#[test]
fn shards_that_were_only_heard_of_make_room_for_work() {
    let mut engine = engine();
    for shard in 100..100 + limits::SHARDS_PER_NODE_MAX as u32 {
        let hint = LeaderHint { leader: Some(node(2)), term: 1, ..LeaderHint::default() };
        engine.handle(Event::Leads { shard: ShardId(shard), by: node(2), hint }, 0);
    }
    effects(&mut engine);
    submit(&mut engine, 1);
    assert_eq!(attempts(&effects(&mut engine)).len(), 1);
}

#[test]
fn an_answer_that_comes_late_counts_and_the_next_one_is_waited_for() {
    const TAKES_MS: u64 = 2_400;
    let told = LeaderHint { leader: Some(node(3)), term: 7, voters: Voters::of([node(2), node(3)]) };
    let work = [Work::Heartbeat(Heartbeat::default()), Work::Query(Query::Counts)];
    for work in work {
        let answer = || match &work {
            Work::Heartbeat(_) => {
                Outcome::Heartbeat(Ok(HeartbeatReply { lead: told.clone(), ..HeartbeatReply::default() }))
            }
            _ => Outcome::Query(Ok(QueryReply { as_of: AsOf::default(), answer: Answer::Counts(Counts::default()) })),
        };
        let mut engine = engine();
        engine.handle(Event::Leads { shard: SHARD, by: node(3), hint: told.clone() }, 0);
        effects(&mut engine);
        let mut asked = Vec::new();
        for begins in [0, 10_000] {
            let submitted = Event::Submit { key: KEY, shard: SHARD, work: work.clone(), patience_ms: 5_000 };
            engine.handle(submitted, begins);
            engine.handle_timeout(begins + TAKES_MS - 1);
            let before = effects(&mut engine);
            let targets = before.iter().filter_map(|effect| match effect {
                Effect::Attempt { target, .. } => Some(*target),
                _ => None,
            });
            asked.push(targets.collect::<Vec<_>>());
            engine.handle(Event::Outcome { key: KEY, attempt: 1, outcome: answer() }, begins + TAKES_MS);
            let settled = effects(&mut engine)
                .into_iter()
                .any(|effect| matches!(effect, Effect::Answer { settled: Settled::Heard(_) | Settled::Read(_), .. }));
            assert!(settled, "{work:?}");
        }
        assert_eq!(asked[0][0], AttemptTarget::Node(node(3)));
        assert!(asked[0].len() > 1, "nobody knows yet how long it takes");
        assert_eq!(asked[1], [AttemptTarget::Node(node(3))], "who answered late leads, and is given the time");
    }
}

#[test]
fn a_late_answer_of_one_who_led_before_displaces_nobody_who_leads() {
    let mut site = Site::with_others(10, [4, 6, 8]);
    site.fail_over(8);
    site.engine.handle(
        Event::Submit { key: KEY, shard: SHARD, work: Work::Query(Query::Counts), patience_ms: 5_000 },
        site.now_ms,
    );
    // It is asked, and does not answer. Somebody else says that it leads, and is asked too.
    assert_eq!(site.carry_out(), None);
    site.dead.push(8);
    site.says_it_leads(8, 6);
    assert_eq!(site.carry_out(), None);
    let answer = Answer::Counts(Counts::default());
    let late = Outcome::Query(Ok(QueryReply { as_of: AsOf::default(), answer }));
    site.engine.handle(Event::Outcome { key: KEY, attempt: 1, outcome: late }, site.now_ms);
    assert!(matches!(site.carry_out(), Some(Settled::Read(_))));
    assert_eq!(site.engine.router.leader(SHARD), Some((node(8), 6)));
}
