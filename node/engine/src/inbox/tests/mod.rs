use super::*;

mod classes;
mod deadlines;
mod fence;
mod forgotten;
mod pressure;
mod proofs;
mod replays;
mod reports;

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_protocol::command::*;
use skep_protocol::ids::{AttachmentId, CommandId, Genesis, HomeEpoch, JournalId, SessionId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalRecord, JournalWrite};
use skep_protocol::lease::{LeaseTerms, Usable};
use skep_protocol::offer::CommandSaid;
use skep_protocol::operator::{AuthorityNews, KnownFirst, OperatorGrant, Root};
use skep_protocol::pull::{Delivery, Pull, PullFor, Pulled, PulledFor};
use skep_protocol::signing::{OperatorKey, OperatorSecret, Place, Signed};
use skep_protocol::text::{Reason, TraceParent};

const CONFIG: EngineConfig = EngineConfig {
    no_quorum_after_ms: 1_000,
    retry_ms_min: 10,
    retry_ms_max: 100,
    attempt_timeout_ms: 300,
    lease: LeaseTerms { ttl_ms: 5_000 },
    heartbeat_ms: 1_000,
};
const SHARD: ShardId = ShardId(1);
const STREAM: StreamKey = StreamKey(1);
const HOME: HomeEpoch = HomeEpoch(1);
/// Longer than any test.
const LEASE: Usable = Usable { stamp: 0, usable_ms: 1_000_000 };

fn agent() -> AgentId {
    AgentId::new("r1").unwrap()
}

fn site() -> SiteName {
    SiteName::new("hall").unwrap()
}

fn operator() -> OperatorSecret {
    OperatorSecret::from_seed(&[1; 32])
}

fn place() -> Place {
    Place { site: site(), shard: SHARD, genesis: Genesis::from_bytes([6; 16]) }
}

/// What the leader says of where authority comes from.
fn root() -> Option<Root> {
    Some(Root { genesis: place().genesis, first: Some(operator().key()), replaced: Vec::new(), past: Vec::new() })
}

fn id(n: u8) -> CommandId {
    CommandId::from_bytes([n; 16])
}

fn at(ms: u64) -> LogInstant {
    LogInstant::from_raw(ms)
}

fn command(n: u8) -> Command {
    Command {
        place: place(),
        id: id(n),
        target: Target::Agent(agent()),
        verb: "goto".parse().unwrap(),
        content_type: "text/plain".parse().unwrap(),
        args: vec![n].into(),
        deadline: at(20_000),
        class: CommandClass::Routine,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: TraceParent::new("").unwrap(),
        waves: None,
        operator: operator().key(),
    }
}

fn urgent(n: u8) -> Command {
    Command { class: CommandClass::Urgent, ..command(n) }
}

fn delivery(seq: u64, command: Command) -> Delivery {
    let command = Arc::new(command.sign(&operator()).unwrap());
    Delivery { seq, command, authority: Arc::default(), void: None }
}

fn taker(stream: StreamKey, session: u8) -> Taker {
    Taker {
        stream,
        shard: SHARD,
        agent: agent(),
        session: SessionId::from_bytes([session; 16]),
        attachment: AttachmentId(7),
        groups: BTreeSet::from(["aisle".parse().unwrap()]),
        in_hand: (0..=u8::MAX).map(id).collect(),
        lease: Some(LEASE),
    }
}

/// What is known to be due is what is found by looking at every inbox.
fn check_dues(inboxes: &Inboxes, now_ms: u64) {
    let due = |(whose, inbox): (&Whose, &Inbox)| {
        let due = inbox.next_due();
        let deadline = due.deadline.and_then(|at| Some(inboxes.bounds.get(&whose.0)?.reaches_at(at)));
        let report = due.report_ms.filter(|_| inboxes.reports_room() > 0);
        [deadline, report].into_iter().flatten().min()
    };
    let expected = inboxes.inboxes.iter().filter_map(due).min();
    assert_eq!(inboxes.dues.first_ms(&inboxes.bounds, inboxes.reports_room()), expected);
    let found = inboxes.dues.due(&inboxes.bounds, now_ms, inboxes.reports_room());
    assert_eq!(found.is_empty(), expected.is_none_or(|at_ms| at_ms > now_ms), "{found:?}");
}

/// A node with one agent, its journal, and what the shard was asked.
struct Node {
    inboxes: Inboxes,
    now_ms: u64,
    head: JournalHead,
    /// What no crash can undo.
    durable: BTreeMap<DeliverySeq, JournalEntry>,
    stated: BTreeMap<OperatorKey, u64>,
    clock_floor: LogInstant,
    begun: BTreeMap<CommandId, LogInstant>,
    /// What is on its way to the disk.
    writes: VecDeque<(u64, Vec<JournalWrite>)>,
    told: Vec<(CommandId, CommandTold)>,
    pull: Option<(InboxPurpose, Pull)>,
    requests: VecDeque<(InboxPurpose, Op)>,
    /// How far commands have come, as the shard was told.
    stands: Vec<DeliveryReport>,
    /// Whether the shard waits for ends.
    open: bool,
    /// The shard's clock when it hears of what goes on.
    clock: LogInstant,
    /// The lease and the attachment of whoever takes its commands next.
    lease: Option<Usable>,
    attachment: AttachmentId,
    /// What its software has in its hands when it takes commands.
    in_hand: BTreeSet<CommandId>,
    /// How often its journal was said to be of no use for now.
    released: u32,
    /// What the leader says of where authority comes from.
    root: Option<Root>,
    /// What the leader says next of what operators were granted.
    news: AuthorityNews,
    /// Behind which places the leader next has it go on.
    back: PerClass<Option<u64>>,
}

impl Node {
    fn new() -> Self {
        Self {
            inboxes: Inboxes::new(site(), CONFIG),
            now_ms: 1_000,
            head: JournalHead::new(JournalId::from_bytes([9; 16])),
            durable: BTreeMap::new(),
            stated: BTreeMap::new(),
            clock_floor: LogInstant::ZERO,
            begun: BTreeMap::new(),
            writes: VecDeque::new(),
            told: Vec::new(),
            pull: None,
            requests: VecDeque::new(),
            stands: Vec::new(),
            open: true,
            clock: at(1),
            lease: Some(LEASE),
            attachment: AttachmentId(7),
            in_hand: (0..=u8::MAX).map(id).collect(),
            released: 0,
            root: root(),
            news: AuthorityNews::default(),
            back: PerClass::default(),
        }
    }

    /// One whose agent takes commands, and whose clock stands at 10 s.
    fn open() -> Self {
        Self::open_under(Some(LEASE))
    }

    fn open_under(lease: Option<Usable>) -> Self {
        let mut node = Self { lease, ..Self::new() };
        node.take(STREAM, 1);
        node.pulled(10_000, vec![], vec![]);
        node.sync();
        node
    }

    fn take(&mut self, stream: StreamKey, session: u8) {
        let (lease, attachment, in_hand) = (self.lease, self.attachment, self.in_hand.clone());
        self.handle(InboxEvent::Takes(Taker { lease, attachment, in_hand, ..taker(stream, session) }));
        self.sync();
        let (key, op) = self.requests.pop_front().expect("the inbox is to be opened");
        assert!(matches!(op, Op::Command(CommandOp::OpenInbox { .. })), "{op:?}");
        let receipt = Receipt::Inbox { agent: agent(), home: HOME };
        self.settle(key, Settled::Done { index: 1, stamp: at(1), receipt });
        self.sync();
    }

    fn handle(&mut self, event: InboxEvent) {
        self.inboxes.handle(event, self.now_ms);
        self.drain();
    }

    fn settle(&mut self, purpose: InboxPurpose, settled: Settled) {
        self.inboxes.answered(purpose, settled, self.now_ms);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(want) = self.inboxes.poll_want() {
            match want {
                InboxWant::Journal(JournalJob::Open { shard, agent }) => {
                    let journal = self.journal();
                    self.inboxes.handle(
                        InboxEvent::Journal(JournalReport::Opened { shard, agent, journal: Box::new(journal) }),
                        self.now_ms,
                    );
                }
                InboxWant::Journal(JournalJob::Write { key, writes, .. }) => self.writes.push_back((key, writes)),
                InboxWant::Journal(JournalJob::Release { .. }) => self.released += 1,
                InboxWant::Ask(Ask { purpose, work, .. }) => match work {
                    Asked::Pull(pull) => self.pull = Some((purpose, pull)),
                    Asked::Op(op) => self.requests.push_back((purpose, op)),
                    Asked::Heartbeat(_) => panic!("inboxes have no heartbeats"),
                },
                InboxWant::Abandon(_) => self.pull = None,
                InboxWant::Tell { command, told, .. } => self.told.push((command, told)),
            }
        }
        check_dues(&self.inboxes, self.now_ms);
    }

    /// Its journal as the disk holds it.
    fn journal(&self) -> JournalState {
        let (mut stated, entries) = (Serials::default(), self.durable.values().cloned().collect());
        self.stated.iter().for_each(|(operator, serial)| stated.raise(&self.head, *operator, *serial));
        let (clock_floor, begun) = (self.clock_floor, self.begun.clone());
        JournalState { head: self.head, stated, entries, clock_floor, begun }
    }

    /// Brings one write to the disk; false if there is none.
    fn sync_one(&mut self) -> bool {
        let Some((key, writes)) = self.writes.pop_front() else { return false };
        for write in writes {
            match write {
                JournalWrite::Head(head) => {
                    if head.is_of_another_shard(&self.head) {
                        self.stated.clear();
                    }
                    self.head = head;
                }
                JournalWrite::Put(entry) => drop(self.durable.insert(entry.seq, entry)),
                JournalWrite::Remove(seq) => drop(self.durable.remove(&seq)),
                JournalWrite::Step(step) => {
                    let entry = self.durable.get_mut(&step.seq).expect("nothing has come further that is not there");
                    entry.take(step);
                }
                JournalWrite::Begun { command, deadline } => drop(self.begun.insert(command, deadline)),
                JournalWrite::ClockFloor(floor) => {
                    self.clock_floor = floor;
                    self.begun.retain(|_, deadline| *deadline > floor);
                }
                JournalWrite::Stated { operator, serial } => drop(self.stated.insert(operator, serial)),
                JournalWrite::Forget => panic!("a journal is forgotten by whoever keeps it"),
            }
        }
        self.handle(InboxEvent::Journal(JournalReport::Written { key }));
        true
    }

    fn sync(&mut self) {
        while self.sync_one() {}
    }

    /// The leader answers, with its clock as it was when it was asked.
    fn pulled(&mut self, clock: u64, deliveries: Vec<Delivery>, voids: Vec<(u64, VoidCause)>) {
        let (key, _) = self.pull.take().expect("the shard is asked");
        let voids = voids.into_iter().map(|(n, cause)| (CommandClass::Routine, n, cause)).collect();
        let (more, back) = (PerClass::default(), std::mem::take(&mut self.back));
        let agents = vec![PulledFor { agent: agent(), home: HOME, open: true, deliveries, voids, seen: 5, more, back }];
        let (root, authority) = (self.root.clone(), std::mem::take(&mut self.news));
        self.settle(key, Settled::Pulled(Box::new(Pulled { clock: at(clock), root, agents, authority })));
    }

    /// What the shard is being asked for.
    fn asked(&self) -> PullFor {
        let (_, pull) = self.pull.as_ref().expect("the shard is asked");
        pull.agents[0].clone()
    }

    fn deliver(&mut self, deliveries: Vec<Delivery>) {
        self.pulled(10_000, deliveries, vec![]);
        self.sync();
    }

    fn say(&mut self, n: u8, said: CommandSaid) {
        self.handle(InboxEvent::Said { stream: STREAM, command: id(n), said });
    }

    fn start(&mut self, n: u8) {
        self.say(n, CommandSaid::Accept);
        self.say(n, CommandSaid::Start { stamp: 77 });
    }

    fn told(&mut self) -> Vec<(u8, &'static str)> {
        let name = |told: &CommandTold| match told {
            CommandTold::Offer(_) => "offer",
            CommandTold::Go { .. } => "go",
            CommandTold::Void(_) => "void",
            CommandTold::Interrupted => "interrupted",
            CommandTold::Recorded(outcome) => outcome.name(),
            CommandTold::Ignored => "ignored",
            CommandTold::Unknown => "unknown",
        };
        std::mem::take(&mut self.told).iter().map(|(id, told)| (id.as_bytes()[0], name(told))).collect()
    }

    /// What the shard was told, and answers.
    fn reported(&mut self) -> Vec<(u8, &'static str)> {
        let mut reported = Vec::new();
        while let Some((key, op)) = self.requests.pop_front() {
            let receipt = match op {
                Op::Command(CommandOp::End { ended }) => {
                    reported.push((ended.command.as_bytes()[0], ended.outcome.name()));
                    Receipt::DeliveryEnded { command: ended.command }
                }
                Op::Command(CommandOp::Report { report }) => {
                    let command = report.command;
                    self.stands.push(*report);
                    Receipt::DeliveryReported { command, open: self.open }
                }
                op => panic!("{op:?}"),
            };
            self.settle(key, Settled::Done { index: 9, stamp: self.clock, receipt });
        }
        self.sync();
        reported
    }

    /// Everything that is not on the disk is gone.
    fn crash(&mut self) {
        self.inboxes = Inboxes::new(site(), CONFIG);
        self.writes.clear();
        self.told.clear();
        self.pull = None;
        self.requests.clear();
    }
}

#[test]
fn a_command_is_written_down_offered_started_and_reported() {
    let mut node = Node::open();
    node.pulled(10_000, vec![delivery(1, command(1))], vec![]);
    assert_eq!(node.told(), [(1, "offer")], "that there is one may be forgotten: it is delivered again");
    node.start(1);
    assert_eq!(node.told(), [], "no go before the intent is durable");
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
    node.say(1, CommandSaid::Succeeded { result: b"there".to_vec() });
    assert_eq!((node.told(), node.reported()), (vec![], vec![]), "no word of an outcome that a crash could undo");
    node.sync();
    assert_eq!(node.told(), [(1, "succeeded")]);
    assert_eq!(node.reported(), [(1, "succeeded")]);
    assert_eq!(node.durable.len(), 0, "what the shard knows is let go of");
    assert_eq!(node.head.cursor.routine, 1);
}

#[test]
fn what_was_had_once_is_never_taken_again() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    node.reported();
    node.told();
    // A late answer, and one after a crash.
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!(node.told(), []);
    node.crash();
    node.take(STREAM, 1);
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!((node.told(), node.reported()), (vec![], vec![]));
}

#[test]
fn a_clock_that_is_known_better_puts_no_step_before_an_earlier_one() {
    let mut node = Node::open();
    // This answer was long under way, so that the shard's clock may be far on; the next one tells that it is not.
    node.now_ms += 5_000;
    node.deliver(vec![delivery(1, command(1))]);
    node.pulled(15_001, vec![], vec![]);
    node.start(1);
    node.sync();
    let steps = node.durable.values().next().unwrap().steps;
    assert!(steps.received > Some(at(15_000)), "{steps:?}");
    assert!(steps.received <= steps.accepted && steps.accepted <= steps.started, "{steps:?}");
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    let ended = node.durable.values().next().unwrap().steps.ended;
    assert!(steps.started <= ended, "{ended:?}");
}

#[test]
fn a_crash_that_forgets_what_was_offered_has_it_delivered_and_offered_again() {
    let mut node = Node::open();
    node.pulled(10_000, vec![delivery(1, command(1))], vec![]);
    node.start(1);
    assert_eq!(node.told(), [(1, "offer")], "no go before the intent is durable, and what came before it");
    node.crash();
    assert_eq!((node.head.cursor.routine, node.durable.len()), (0, 0));
    node.take(STREAM, 2);
    node.pulled(10_000, vec![delivery(1, command(1))], vec![]);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "offer"), (1, "go")]);
}

#[test]
fn a_crash_before_the_intent_is_not_started_and_after_it_nobody_knows() {
    for (idempotent, expected) in [(false, "indeterminate"), (true, "offer")] {
        let mut node = Node::open();
        node.deliver(vec![delivery(1, Command { idempotent, ..command(1) })]);
        // Before: it is offered again.
        node.start(1);
        node.crash();
        node.take(STREAM, 2);
        assert_eq!(node.told(), [(1, "offer")]);
        node.pulled(10_000, vec![], vec![]);
        // After: its software may have begun.
        node.start(1);
        node.sync();
        assert_eq!(node.told(), [(1, "go")]);
        node.crash();
        node.take(STREAM, 3);
        node.sync();
        let told = node.told();
        assert!(told.contains(&(1, expected)), "{told:?}");
        assert_eq!(told.contains(&(1, "interrupted")), !idempotent);
        assert_eq!(node.reported(), if idempotent { vec![] } else { vec![(1, "indeterminate")] });
    }
}

#[test]
fn an_outcome_is_told_the_shard_until_it_knows() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.say(1, CommandSaid::Reject { reason: Reason::truncated("no arm") });
    node.sync();
    let (key, _) = node.requests.pop_front().unwrap();
    node.settle(key, Settled::Unknown);
    assert_eq!(node.requests.len(), 0);
    node.now_ms += CONFIG.retry_ms_max;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    assert_eq!(node.requests.len(), 1);
    // A crash forgets that it was told, not that it is to be; nobody needs to be attached for it.
    node.crash();
    let journal = node.journal();
    node.handle(InboxEvent::Journal(JournalReport::Opened {
        shard: SHARD,
        agent: agent(),
        journal: Box::new(journal),
    }));
    assert_eq!(node.reported(), [(1, "rejected")]);
    assert_eq!(node.durable.len(), 0);
}

#[test]
fn what_is_called_off_ends_unless_it_was_started() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2))]);
    node.start(1);
    node.sync();
    node.told();
    node.pulled(10_000, vec![], vec![(1, VoidCause::Cancelled), (2, VoidCause::Superseded)]);
    node.sync();
    assert_eq!(node.told(), [(2, "void"), (2, "superseded")]);
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    assert_eq!(node.reported(), [(2, "superseded"), (1, "succeeded")]);
}

#[test]
fn commands_of_a_class_go_one_after_another_and_an_urgent_one_beside_the_others() {
    let mut node = Node::open();
    let of = |n: u8, command| delivery(n.into(), command);
    node.deliver(vec![of(1, command(1)), of(2, command(2)), of(3, urgent(3)), of(4, urgent(4))]);
    assert_eq!(node.told(), [(1, "offer"), (3, "offer")]);
    node.start(1);
    node.sync();
    node.start(3);
    node.sync();
    assert_eq!(node.told(), [(1, "go"), (3, "go")]);
    // Out of turn: they were not offered.
    node.start(2);
    node.start(4);
    assert_eq!(node.told(), [(2, "ignored"), (4, "ignored")]);
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    assert_eq!(node.told(), [(1, "succeeded"), (2, "offer")]);
}

#[test]
fn another_journals_time_begins_anew_and_what_was_not_started_in_the_old_one_never_is() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.crash();
    node.handle(InboxEvent::Takes(taker(STREAM, 2)));
    let (key, _) = node.requests.pop_front().unwrap();
    let receipt = Receipt::Inbox { agent: agent(), home: HomeEpoch(3) };
    node.settle(key, Settled::Done { index: 1, stamp: at(1), receipt });
    node.sync();
    assert_eq!(node.reported(), [(1, "rejected")]);
    assert_eq!((node.head.home, node.head.cursor), (HomeEpoch(3), PerClass::default()));
}

#[test]
fn nothing_is_pulled_for_an_agent_that_is_gone_and_what_it_left_is_still_reported() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.handle(InboxEvent::Gone { stream: STREAM });
    let (key, _) = node.pull.take().unwrap();
    node.settle(key, Settled::Unknown);
    assert_eq!(node.pull, None);
    node.now_ms += 20_000;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
    assert_eq!(node.reported(), [(1, "expired")]);
}

#[test]
fn a_full_inbox_takes_no_more_and_asks_again_once_there_is_room() {
    let mut node = Node::open();
    let many: Vec<Delivery> = (1..=limits::INBOX_MAX as u8).map(|n| delivery(n.into(), command(n))).collect();
    node.deliver(many);
    let (_, pull) = node.pull.clone().unwrap();
    assert_eq!((pull.agents[0].room.routine, pull.agents[0].seen), (0, 5));
    node.say(1, CommandSaid::Reject { reason: Reason::truncated("no") });
    let (_, pull) = node.pull.clone().unwrap();
    assert_eq!((pull.agents[0].room.routine, pull.agents[0].seen), (1, 0), "asked for at once, with nothing seen");
}

#[test]
fn what_software_says_out_of_turn_is_ignored() {
    let mut node = Node::open();
    node.say(9, CommandSaid::Accept);
    node.deliver(vec![delivery(1, command(1))]);
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    assert_eq!(node.told(), [(9, "ignored"), (1, "offer"), (1, "ignored")]);
    node.start(1);
    node.sync();
    node.say(1, CommandSaid::Accept);
    assert_eq!(node.told(), [(1, "go"), (1, "ignored")]);
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    // Said again, it is told what is known.
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("again") });
    assert_eq!(node.told(), [(1, "succeeded"), (1, "succeeded")]);
}

#[test]
fn what_is_said_while_the_journal_is_being_read_is_answered() {
    let mut node = Node::new();
    node.inboxes.handle(InboxEvent::Takes(taker(STREAM, 1)), node.now_ms);
    node.say(1, CommandSaid::Start { stamp: 1 });
    assert_eq!(node.told(), [(1, "ignored")], "whoever said it says it again");
}

#[test]
fn an_entry_of_a_journal_survives_its_encoding() {
    use skep_protocol::codec::Encoded as _;
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    let entry = node.durable.values().next().unwrap().clone();
    assert_eq!(entry.phase, JournalPhase::Received);
    let writes = vec![JournalWrite::Put(entry), JournalWrite::Head(node.head)];
    let record = JournalRecord { shard: SHARD, agent: agent(), writes };
    assert_eq!(JournalRecord::decode(&record.encode().unwrap()), Ok(record));
}
