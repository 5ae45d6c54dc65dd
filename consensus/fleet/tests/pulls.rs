//! Answers to nodes that wait for commands: a leader that looks only at what changed misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use skep_fleet::FleetState;
use skep_protocol::agent::AgentOp;
use skep_protocol::command::*;
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch};
use skep_protocol::pull::{Pull, PullFor, PulledFor};
use support::hall::*;
use support::*;

const ROBOTS: [&str; 3] = ["r1", "r2", "r3"];
const ROOM: PerClass<u32> = PerClass { routine: 8, urgent: 4 };

#[derive(Clone, Debug)]
enum Event {
    Send {
        to: Option<usize>,
        supersedes: bool,
        urgent: bool,
    },
    Cancel {
        command: usize,
    },
    End {
        robot: usize,
    },
    /// The robot's node comes with another journal.
    NewJournal {
        robot: usize,
    },
    Snapshot,
    Pass {
        ms: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let robot = 0..ROBOTS.len();
    prop_oneof![
        4 => (prop::option::of(robot.clone()), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(to, supersedes, urgent)| Event::Send { to, supersedes, urgent }),
        2 => (0..40_usize).prop_map(|command| Event::Cancel { command }),
        4 => robot.clone().prop_map(|robot| Event::End { robot }),
        1 => robot.prop_map(|robot| Event::NewJournal { robot }),
        1 => Just(Event::Snapshot),
        2 => (1..6_000_u64).prop_map(|ms| Event::Pass { ms }),
    ]
}

/// The nodes of the robots, one each, with what they know.
struct Nodes {
    hall: Hall,
    asked: Vec<PullFor>,
    /// The entry as of which there was nothing for a robot.
    looked: Vec<Option<u64>>,
    journals: u8,
    sent: Vec<CommandId>,
}

impl Nodes {
    fn new() -> Self {
        let mut nodes = Self {
            hall: Hall::new(),
            asked: Vec::new(),
            looked: vec![None; ROBOTS.len()],
            journals: 0,
            sent: Vec::new(),
        };
        for robot in 0..ROBOTS.len() {
            nodes.join(robot);
        }
        nodes
    }

    /// The last entry.
    fn as_of(&self) -> u64 {
        self.hall.state.applied().unwrap().index
    }

    fn join(&mut self, robot: usize) {
        self.journals += 1;
        let (name, to, at) = (ROBOTS[robot], journal(self.journals), u8::try_from(robot).unwrap() + 1);
        let home = self.hall.join(name, at, to, &["aisle"]);
        let attachment = self.hall.state.agent(&agent(name)).unwrap().attachment.unwrap().id;
        let (after, agent) = (PerClass::default(), agent(name));
        let asked = PullFor { agent, attachment, journal: to, home, after, seen: 0, room: ROOM };
        match self.asked.get_mut(robot) {
            Some(known) => *known = asked,
            None => self.asked.push(asked),
        }
        self.looked[robot] = None;
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Send { to: target, supersedes, urgent } => {
                let n = u8::try_from(self.sent.len() + 1).unwrap();
                let target = target.map_or(Target::Group("aisle".parse().unwrap()), |robot| to(ROBOTS[robot]));
                let supersedes = self.sent.last().copied().filter(|_| *supersedes);
                let class = if *urgent { CommandClass::Urgent } else { CommandClass::Routine };
                let command = Command { supersedes, class, ..self.hall.command(n, target) };
                self.sent.push(command.id);
                self.hall.send(command);
            }
            Event::Cancel { command } => {
                if let Some(command) = self.sent.get(*command) {
                    self.hall.told(control(command.as_bytes()[0], ControlKind::Cancel));
                }
            }
            Event::End { robot } => {
                let first = self.hall.waiting(ROBOTS[*robot]).first().copied();
                if let Some((n, command, _)) = first {
                    let home = self.asked[*robot].home.0;
                    let end = self.hall.ended(ROBOTS[*robot], command.as_bytes()[0], (home, n), succeeded());
                    self.hall.ok(end);
                }
            }
            Event::NewJournal { robot } => self.join(*robot),
            Event::Snapshot => {
                let bytes = self.hall.state.to_snapshot().unwrap();
                self.hall.shard.state = FleetState::from_snapshot(&bytes).unwrap();
                // A node has not asked the replica that answers from it before.
                self.looked = vec![None; ROBOTS.len()];
            }
            Event::Pass { ms } => {
                self.hall.now = self.hall.now.plus_ms(*ms);
                self.hall.settle();
            }
        }
    }

    /// Every node that waits looks at what changed, and would have found the same by looking at all.
    fn look(&mut self) {
        for robot in 0..ROBOTS.len() {
            let at = node(u8::try_from(robot).unwrap() + 1);
            let pull = Pull { agents: vec![self.asked[robot].clone()], wait_ms: 1_000, replaced: 0, authority: 0 };
            let all = self.hall.state.pull(at, &pull, None, usize::MAX);
            let news = self.hall.state.pull(at, &pull, self.looked[robot], usize::MAX);
            assert_eq!(news, all, "{robot}, looked as of {:?}", self.looked[robot]);
            if all.is_empty() {
                let pull = Pull {
                    agents: vec![PullFor { seen: 0, ..self.asked[robot].clone() }],
                    wait_ms: 1_000,
                    replaced: 0,
                    authority: 0,
                };
                let unseen = self.hall.state.pull(at, &pull, None, usize::MAX);
                assert!(unseen.iter().all(|answer| answer.deliveries.is_empty()), "{robot} misses {unseen:?}");
            }
            self.looked[robot] = match news.first() {
                None => self.hall.state.applied().map(|position| position.index),
                Some(answer) => {
                    self.heard(robot, answer);
                    None
                }
            };
        }
    }

    fn heard(&mut self, robot: usize, answer: &PulledFor) {
        let asked = &mut self.asked[robot];
        assert!(answer.open, "{answer:?}");
        for delivery in &answer.deliveries {
            *asked.after.of_mut(delivery.command.class) = delivery.seq;
        }
        asked.seen = if answer.more == PerClass::default() { answer.seen } else { 0 };
        // It makes room at once for what it has.
        asked.room = ROOM;
    }
}

proptest! {
    #[test]
    fn a_node_that_waits_finds_by_what_changed_what_it_would_find_by_looking_at_all(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut nodes = Nodes::new();
        nodes.look();
        for event in &events {
            nodes.happens(event);
            nodes.look();
        }
    }
}

#[test]
fn a_node_that_is_ahead_of_all_that_was_let_out_is_told_where_it_goes_on() {
    let mut nodes = Nodes::new();
    for n in 1..=3 {
        let command = nodes.hall.command(n, to(ROBOTS[0]));
        nodes.hall.send(command);
    }
    let pull = |nodes: &Nodes, routine: u64| {
        let seen = nodes.as_of();
        let asked = PullFor { after: PerClass { routine, urgent: 0 }, seen, ..nodes.asked[0].clone() };
        let pull = Pull { agents: vec![asked], wait_ms: 1_000, replaced: 0, authority: 0 };
        let answer = nodes.hall.state.pull(node(1), &pull, None, usize::MAX);
        assert_eq!(nodes.hall.state.is_passed(node(1), &pull), !answer.is_empty());
        answer.first().map(|of| (of.back, of.deliveries.iter().map(|one| one.seq).collect::<Vec<u64>>()))
    };
    let back = |routine: u64| PerClass { routine: Some(routine), urgent: None };
    assert_eq!(pull(&nodes, 3), None, "it has all that there is");
    assert_eq!(pull(&nodes, u64::MAX), Some((back(0), vec![1, 2, 3])));
    // What has ended is behind it, and what has not ended it need not have had.
    let ended = nodes.hall.ended(ROBOTS[0], 1, (nodes.asked[0].home.0, 1), succeeded());
    nodes.hall.ok(ended);
    assert_eq!(pull(&nodes, 4), Some((back(1), vec![2, 3])));
}

#[test]
fn a_node_that_was_told_of_entries_that_there_are_not_hears_what_there_is_and_up_to_where() {
    let mut nodes = Nodes::new();
    let command = nodes.hall.command(1, to(ROBOTS[0]));
    nodes.hall.send(command);
    let (as_of, stated) = (nodes.as_of(), nodes.hall.state.restated());
    let pull = |robot: usize, seen: u64, authority: u64| {
        let asked = PullFor { seen, ..nodes.asked[robot].clone() };
        let at = node(u8::try_from(robot).unwrap() + 1);
        let pull = Pull { agents: vec![asked], wait_ms: 1_000, replaced: 0, authority };
        let answer = nodes.hall.state.pull(at, &pull, None, usize::MAX).pop();
        let answer = answer.map(|of| (of.seen, of.deliveries.iter().map(|one| one.seq).collect::<Vec<u64>>()));
        (nodes.hall.state.is_passed(at, &pull), answer)
    };
    assert_eq!(pull(0, as_of, stated), (false, None));
    for wild in [as_of + 1, u64::MAX] {
        assert_eq!(pull(0, wild, stated), (true, Some((as_of, vec![1]))));
        assert_eq!(pull(1, wild, stated), (true, Some((as_of, vec![]))), "nothing is there for it yet");
        assert_eq!(pull(0, as_of, wild), (true, None));
    }
}

#[test]
fn an_inbox_that_another_journal_took_over_is_closed_for_whoever_waits() {
    let mut nodes = Nodes::new();
    nodes.look();
    let before = nodes.asked[0].clone();
    let looked = nodes.hall.state.applied().map(|position| position.index);
    nodes.join(0);
    let pull = Pull { agents: vec![before], wait_ms: 1_000, replaced: 0, authority: 0 };
    let answer = nodes.hall.state.pull(node(1), &pull, looked, usize::MAX);
    assert_eq!(answer.len(), 1);
    assert!(!answer[0].open, "{answer:?}");
    // No node serves its agent any more: the node that waits hears it, before another node takes the agent's commands.
    let served = nodes.asked[0].clone();
    let looked = nodes.hall.state.applied().map(|position| position.index);
    nodes.hall.ok(AgentOp::Detach { agent: agent(ROBOTS[0]), attachment: served.attachment });
    assert_eq!(nodes.hall.state.inboxes_changed_after(looked).collect::<Vec<_>>(), [&agent(ROBOTS[0])]);
    let answer = nodes.hall.state.pull(
        node(1),
        &Pull { agents: vec![served], wait_ms: 1_000, replaced: 0, authority: 0 },
        looked,
        usize::MAX,
    );
    assert!(answer.len() == 1 && !answer[0].open, "{answer:?}");
    let strange = PullFor { home: HomeEpoch(9), attachment: AttachmentId(99), ..nodes.asked[1].clone() };
    let answer = nodes.hall.state.pull(
        node(2),
        &Pull { agents: vec![strange], wait_ms: 1_000, replaced: 0, authority: 0 },
        None,
        usize::MAX,
    );
    assert!(!answer[0].open, "{answer:?}");
}
