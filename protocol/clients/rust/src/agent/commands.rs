//! Commands, as the agent's software meets them.
//!
//! What the software said is said again on every new stream until the node answers it. So neither a restart of the node
//! nor a broken stream loses or doubles anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use skep_proto::convert;
use skep_proto::v1;
use skep_proto::v1::command_news::News;
use skep_proto::v1::command_step::Step;
use skep_protocol::limits::{COMMANDS_IN_HAND_MAX, INBOX_MAX, INBOX_URGENT_MAX};
use skep_protocol::offer::GoToken;
use tokio::sync::{mpsc, watch};

use super::{AgentStatus, Fenced, Shared, boot_ms};

/// The most commands that were offered and that the software has not taken up: as many as a node hands out.
const OFFERS_QUEUED_MAX: usize = INBOX_MAX + INBOX_URGENT_MAX;
/// The most pieces of news of one command that the software has not read. The last of each kind matter, and there are
/// few.
const NEWS_QUEUED_MAX: usize = 32;
/// How often a step is said again to a node that does not know the command, and the wait between. A node that has just
/// attached the agent may not know the command yet.
const SAID_AGAIN_MAX: u32 = 100;
const SAY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why the software must not do a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The command is void: it must not be started.
    #[error("the command must not be started: {0}")]
    Void(String),
    /// The time to start it has passed, on this machine's own clock.
    #[error("the time to start the command passed {late_ms} ms ago")]
    TooLate {
        /// How long ago that was, in milliseconds.
        late_ms: u64,
    },
    /// The agent's lease was over, on this machine's own clock: another session may have the agent.
    #[error("the agent's lease ended {ago_ms} ms ago; another session may have the agent")]
    LeaseOver {
        /// How long ago the lease ended, in milliseconds; 0 if it never ran, or was taken back.
        ago_ms: u64,
    },
    /// The node does not know the command, or the agent is not attached.
    #[error("the node does not know the command")]
    Lost,
    /// The node holds nothing of the command, and takes no outcome of it: the software was gone for days, or the node
    /// recorded an earlier outcome and its answer was lost.
    #[error("the node has forgotten the command: its outcome was recorded before, or is recorded nowhere")]
    Forgotten,
}

/// Until when the software may begin a command, and when that was checked, in milliseconds of this machine's boot
/// clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartLeft {
    /// When that was checked.
    pub at_ms: u64,
    /// The instant from which on the command must not be begun.
    pub until_ms: u64,
}

/// What the software's side knows of one command.
struct Waiting {
    /// What the software said last and the node has not answered.
    last: Option<Step>,
    news: mpsc::Sender<News>,
    /// How often the node ignored it since no caller waits for the answer.
    ignored: u32,
}

/// What the stream and the software share about commands.
pub(super) struct CommandDesk {
    /// The groups of an agent that takes commands; none for an agent that takes none.
    takes: watch::Sender<Option<Vec<String>>>,
    waiting: std::sync::Mutex<BTreeMap<Vec<u8>, Waiting>>,
    /// The greatest fencing token that this session was given.
    token: std::sync::Mutex<GoToken>,
    /// Commands of which the stream has something to say.
    to_say: watch::Sender<BTreeSet<Vec<u8>>>,
    offers: mpsc::Sender<(v1::Command, mpsc::Receiver<News>)>,
}

impl CommandDesk {
    pub(super) fn new() -> (Self, mpsc::Receiver<(v1::Command, mpsc::Receiver<News>)>) {
        let (offers, offered) = mpsc::channel(OFFERS_QUEUED_MAX);
        let (takes, to_say) = (watch::channel(None).0, watch::channel(BTreeSet::new()).0);
        let (waiting, token) = Default::default();
        (Self { takes, waiting, token, to_say, offers }, offered)
    }

    /// Notes the fencing token of a "go". The session owns the agent, not the "go": what the software began before the
    /// node attached it anew is its own all the same.
    fn raise(&self, token: GoToken) {
        let mut greatest = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        *greatest = token.max(*greatest);
    }

    fn token(&self) -> GoToken {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<Vec<u8>, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn takes(&self) -> watch::Receiver<Option<Vec<String>>> {
        self.takes.subscribe()
    }

    pub(super) fn to_say(&self) -> watch::Receiver<BTreeSet<Vec<u8>>> {
        self.to_say.subscribe()
    }

    /// Takes the steps that the stream is to say.
    pub(super) fn drain(&self) -> Vec<v1::CommandStep> {
        let mut ids = BTreeSet::new();
        self.to_say.send_if_modified(|to_say| {
            ids = std::mem::take(to_say);
            false
        });
        let mut waiting = self.waiting();
        let mut step = |id: Vec<u8>| {
            let known = waiting.get_mut(&id)?;
            // Progress is said once: the node does not answer it, and it is soon out of date.
            let said_once = matches!(known.last, Some(Step::Progress(_)));
            // The time to begin, and the lease, count from the moment at which the software asks.
            if let Some(Step::Start(stamp)) = &mut known.last {
                *stamp = boot_ms();
            }
            let step = if said_once { known.last.take() } else { known.last.clone() }?;
            Some(v1::CommandStep { command_id: id, step: Some(step) })
        };
        ids.into_iter().filter_map(&mut step).collect()
    }

    /// Says every step that has no answer again, on a new stream.
    pub(super) fn say_all_again(&self) {
        let ids: Vec<Vec<u8>> =
            self.waiting().iter().filter(|(_, known)| known.last.is_some()).map(|(id, _)| id.clone()).collect();
        self.to_say.send_modify(|to_say| to_say.extend(ids));
    }

    fn say(&self, id: &[u8], step: Step) {
        if let Some(known) = self.waiting().get_mut(id) {
            known.last = Some(step);
        }
        self.say_again(id);
    }

    fn say_again(&self, id: &[u8]) {
        self.to_say.send_modify(|to_say| _ = to_say.insert(id.to_vec()));
    }

    /// The commands that the software has in hand. The node takes every other one that it believes to be under way for
    /// lost.
    pub(super) fn in_hand(&self) -> Vec<Vec<u8>> {
        self.waiting().keys().cloned().collect()
    }

    fn answered(&self, id: &[u8]) {
        if let Some(known) = self.waiting().get_mut(id) {
            known.last = None;
        }
    }

    fn forget(&self, id: &[u8]) {
        self.waiting().remove(id);
    }

    /// Takes what the node said of a command.
    pub(super) fn hear(&self, news: v1::CommandNews) {
        let (id, Some(news)) = (news.command_id, news.news) else { return };
        let mut waiting = self.waiting();
        match news {
            News::Offer(command) => {
                if waiting.contains_key(&id) {
                    // This is known already: what the software said of it was lost with the stream.
                    drop(waiting);
                    return self.say_again(&id);
                }
                // There are more than the node lets the software name. A command that is not taken up is not begun, and
                // ends at its deadline.
                if waiting.len() >= COMMANDS_IN_HAND_MAX {
                    return;
                }
                let (told, news) = mpsc::channel(NEWS_QUEUED_MAX);
                if self.offers.try_send((command, news)).is_ok() {
                    waiting.insert(id, Waiting { last: None, news: told, ignored: 0 });
                }
            }
            news => {
                let Some(known) = waiting.get_mut(&id) else { return };
                let (ignored, is_over) = match &news {
                    News::Ignored(ignored) => (!ignored.for_good, ignored.for_good),
                    News::Recorded(_) | News::Void(_) | News::Interrupted(_) => (false, true),
                    News::Go(_) | News::Offer(_) => (false, false),
                };
                if known.news.try_send(news).is_ok() {
                    return;
                }
                known.ignored += u32::from(ignored);
                if is_over || known.ignored > SAID_AGAIN_MAX {
                    // The caller that had it has dropped it, and the node has written that down, or does not know the
                    // command.
                    waiting.remove(&id);
                } else if ignored {
                    drop(waiting);
                    self.say_again(&id);
                }
            }
        }
    }
}

/// The commands that the node offers to an agent.
pub struct CommandOffers {
    shared: Arc<Shared>,
    offered: mpsc::Receiver<(v1::Command, mpsc::Receiver<News>)>,
}

/// A command that the node has offered. The software must not do anything yet. Dropping it rejects the command.
pub struct OfferedCommand {
    /// The command.
    pub command: v1::Command,
    open: Open,
}

/// A command that the software is doing. Dropping it reports a failure.
pub struct RunningCommand {
    /// The command.
    pub command: v1::Command,
    open: Open,
    until_ms: u64,
}

/// One command between the software and its node.
struct Open {
    shared: Arc<Shared>,
    id: Vec<u8>,
    news: mpsc::Receiver<News>,
    /// The step that is said if this is dropped.
    if_dropped: Option<Step>,
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.if_dropped.take() {
            // The step stays on the desk until the node has it.
            Some(step) => self.shared.desk.say(&self.id, step),
            None => self.shared.desk.forget(&self.id),
        }
    }
}

impl CommandOffers {
    pub(super) fn new(
        shared: Arc<Shared>,
        offered: mpsc::Receiver<(v1::Command, mpsc::Receiver<News>)>,
        groups: &[&str],
    ) -> Self {
        shared.desk.takes.send_replace(Some(groups.iter().map(|group| (*group).to_owned()).collect()));
        Self { shared, offered }
    }

    /// Returns the next command that the node offers. None when the agent has ended. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<OfferedCommand> {
        let mut status = self.shared.status.subscribe();
        let (command, news) = tokio::select! {
            biased;
            offered = self.offered.recv() => offered?,
            _ = status.wait_for(|status| matches!(status, AgentStatus::Ended(_))) => return None,
        };
        let if_dropped = Some(Step::Reject("the agent's software dropped it".to_owned()));
        let open = Open { shared: Arc::clone(&self.shared), id: command.id.clone(), news, if_dropped };
        Some(OfferedCommand { command, open })
    }
}

impl Open {
    /// Says a step and waits for the answer.
    async fn ask(&mut self, step: Step) -> Result<News, NotStarted> {
        let starts = matches!(step, Step::Start(_));
        self.shared.desk.say(&self.id, step);
        let mut again = 0;
        let mut status = self.shared.status.subscribe();
        loop {
            let news = tokio::select! {
                biased;
                news = self.news.recv() => news,
                _ = status.wait_for(|status| matches!(status, AgentStatus::Ended(_))) => None,
            };
            match news {
                None => return Err(NotStarted::Lost),
                Some(News::Ignored(ignored)) if ignored.for_good => {
                    self.shared.desk.answered(&self.id);
                    return Err(NotStarted::Forgotten);
                }
                Some(News::Ignored(_)) => {
                    // Nothing is started without a lease. The lease is renewed, or the attachment ends: this waits for
                    // either.
                    let waits = starts && self.shared.holdings().lease(boot_ms()).is_err();
                    again += u32::from(!waits);
                    if again > SAID_AGAIN_MAX {
                        return Err(NotStarted::Lost);
                    }
                    tokio::time::sleep(SAY_AGAIN_AFTER).await;
                    self.shared.desk.say_again(&self.id);
                }
                Some(News::Offer(_)) => {}
                Some(news) => {
                    self.shared.desk.answered(&self.id);
                    return Ok(news);
                }
            }
        }
    }

    /// Checks whether the software may begin the command now, given the instant until which it may.
    fn may_begin(&self, until_ms: u64) -> Result<StartLeft, NotStarted> {
        let at_ms = boot_ms();
        match self.shared.holdings().lease(at_ms) {
            Ok(_) if at_ms < until_ms => Ok(StartLeft { at_ms, until_ms }),
            Ok(_) => Err(NotStarted::TooLate { late_ms: at_ms - until_ms }),
            Err(Fenced::LeaseEnded { ago_ms }) => Err(NotStarted::LeaseOver { ago_ms }),
            Err(Fenced::ClaimLost) => Err(NotStarted::LeaseOver { ago_ms: 0 }),
        }
    }

    /// Says how the command ended, and waits until the node has written that down.
    async fn end(mut self, step: Step) -> Result<(), NotStarted> {
        // If this is dropped meanwhile, it ends the same way.
        self.if_dropped = Some(step.clone());
        loop {
            match self.ask(step.clone()).await {
                Ok(News::Recorded(_)) => break,
                Ok(News::Void(_) | News::Go(_) | News::Interrupted(_) | News::Offer(_) | News::Ignored(_)) => {}
                Err(why) => {
                    // The node would not take it, however often it is said.
                    if why == NotStarted::Forgotten {
                        self.if_dropped = None;
                    }
                    return Err(why);
                }
            }
        }
        self.if_dropped = None;
        Ok(())
    }
}

impl OfferedCommand {
    /// Says that the software will do the command. [`start`](Self::start) says so too.
    pub fn accept(&self) {
        self.open.shared.desk.say(&self.open.id, Step::Accept(v1::AcceptCommand {}));
    }

    /// Says that the software will not do the command, and waits until the node has written that down.
    ///
    /// # Errors
    /// [`NotStarted::Lost`] if the node does not know the command.
    pub async fn reject(self, reason: &str) -> Result<(), NotStarted> {
        self.open.end(Step::Reject(reason.to_owned())).await
    }

    /// Asks to begin, and waits for the "go", however long the agent's lease is over meanwhile. The software must not
    /// do anything before.
    ///
    /// # Errors
    /// [`NotStarted`]: the software must not do the command.
    pub async fn start(mut self) -> Result<RunningCommand, NotStarted> {
        let mut again = 0;
        loop {
            let go = match self.open.ask(Step::Start(boot_ms())).await {
                Ok(News::Go(go)) => go,
                Ok(News::Void(cause) | News::Recorded(cause)) => {
                    self.open.if_dropped = None;
                    return Err(NotStarted::Void(cause));
                }
                Ok(News::Interrupted(_)) => {
                    self.open.if_dropped = None;
                    return Err(NotStarted::Void("interrupted".to_owned()));
                }
                // The software gives this one up, and says so: the node may have written down that the software would
                // begin.
                Ok(News::Offer(_) | News::Ignored(_)) | Err(_) => return Err(NotStarted::Lost),
            };
            let within = go.within.and_then(|within| Duration::try_from(within).ok()).unwrap_or_default();
            let until_ms = go.stamp.saturating_add(u64::try_from(within.as_millis()).unwrap_or(0));
            self.open.shared.desk.raise(convert::go_token(go.token));
            self.open.if_dropped = Some(Step::Failed("the agent's software dropped it".to_owned()));
            match self.open.may_begin(until_ms) {
                Ok(_) => return Ok(RunningCommand { command: self.command, open: self.open, until_ms }),
                // A process that was suspended between the "go" and this moment asks for another: there may be time
                // until the deadline.
                Err(_) if !within.is_zero() && again < SAID_AGAIN_MAX => {
                    again += 1;
                    tokio::time::sleep(SAY_AGAIN_AFTER).await;
                }
                Err(late) => {
                    let _ = self.open.end(Step::Failed("too late".to_owned())).await;
                    return Err(late);
                }
            }
        }
    }
}

impl RunningCommand {
    /// Checks whether the software may still begin. Call it immediately before the first effect in the world.
    ///
    /// # Errors
    /// [`NotStarted::TooLate`], or [`NotStarted::LeaseOver`].
    pub fn check(&self) -> Result<StartLeft, NotStarted> {
        self.open.may_begin(self.until_ms)
    }

    /// The fencing token: the greatest that this session was given. Show it to the thing on which the command has its
    /// first effect; that refuses a lower token than it has seen from this agent.
    pub fn token(&self) -> GoToken {
        self.open.shared.desk.token()
    }

    /// Says how far the work has come, in thousandths. The last value counts, and need not arrive: the shard is told at
    /// most once a second, and what is lost with a stream or a node is not said again.
    pub fn progress(&self, permille: u16, note: &str) {
        let said = v1::SaidProgress { permille: permille.min(1_000).into(), note: note.to_owned() };
        self.open.shared.desk.say(&self.open.id, Step::Progress(said));
    }

    /// Says that the command succeeded, and waits until the node has written that down.
    ///
    /// # Errors
    /// [`NotStarted::Forgotten`] if the node has forgotten the command, [`NotStarted::Lost`] if the node does not know
    /// it, or the agent is not attached.
    pub async fn succeed(self, result: Vec<u8>) -> Result<(), NotStarted> {
        self.open.end(Step::Succeeded(result)).await
    }

    /// Says that the command failed, and waits until the node has written that down.
    ///
    /// # Errors
    /// As [`succeed`](Self::succeed).
    pub async fn fail(self, reason: &str) -> Result<(), NotStarted> {
        self.open.end(Step::Failed(reason.to_owned())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> Vec<u8> {
        vec![n; 16]
    }

    fn told(n: u8, news: News) -> v1::CommandNews {
        v1::CommandNews { command_id: id(n), news: Some(news) }
    }

    fn offer(n: u8) -> v1::CommandNews {
        told(n, News::Offer(v1::Command { id: id(n), ..v1::Command::default() }))
    }

    #[test]
    fn what_was_given_up_on_after_it_was_ignored_is_in_nobodys_hands() {
        let (desk, mut offered) = CommandDesk::new();
        desk.hear(offer(1));
        desk.hear(offer(2));
        assert_eq!(desk.in_hand(), [id(1), id(2)]);
        // The software gives one command up. It says so until its node has that, or shows that it does not know the
        // command.
        drop(offered.try_recv().unwrap());
        desk.say(&id(1), Step::Reject("the agent's software dropped it".to_owned()));
        for _ in 0..SAID_AGAIN_MAX {
            desk.hear(told(1, News::Ignored(v1::CommandIgnored { for_good: false })));
            assert_eq!(desk.in_hand(), [id(1), id(2)]);
        }
        desk.hear(told(1, News::Ignored(v1::CommandIgnored { for_good: false })));
        assert_eq!(desk.in_hand(), [id(2)]);
    }

    #[test]
    fn what_its_node_has_let_go_of_for_good_is_not_said_again() {
        let (desk, mut offered) = CommandDesk::new();
        desk.hear(offer(1));
        drop(offered.try_recv().unwrap());
        desk.say(&id(1), Step::Succeeded(Vec::new()));
        assert_eq!(desk.in_hand(), [id(1)]);
        desk.hear(told(1, News::Ignored(v1::CommandIgnored { for_good: true })));
        assert!(desk.in_hand().is_empty() && desk.drain().is_empty());
    }

    #[test]
    fn no_more_is_taken_up_than_its_node_lets_it_name() {
        let (desk, _offered) = CommandDesk::new();
        for n in 0..=u8::try_from(COMMANDS_IN_HAND_MAX).unwrap() {
            desk.hear(offer(n));
        }
        assert_eq!(desk.in_hand().len(), COMMANDS_IN_HAND_MAX);
    }

    #[test]
    fn a_question_to_begin_is_stamped_whenever_it_is_said() {
        let (desk, _offered) = CommandDesk::new();
        desk.hear(offer(1));
        desk.say(&id(1), Step::Start(0));
        let stamps: Vec<u64> = [(), ()]
            .into_iter()
            .flat_map(|()| {
                desk.say_all_again();
                desk.drain()
            })
            .filter_map(|said| match said.step {
                Some(Step::Start(stamp)) => Some(stamp),
                _ => None,
            })
            .collect();
        assert!(stamps.len() == 2 && stamps[0] > 0 && stamps.is_sorted(), "{stamps:?}");
    }

    #[test]
    fn the_token_of_a_run_never_falls() {
        let (desk, _offered) = CommandDesk::new();
        let token = |home, attachment| convert::go_token(Some(v1::GoToken { home, attachment }));
        for (given, greatest) in [((1, 7), (1, 7)), ((2, 3), (2, 3)), ((1, 9), (2, 3))] {
            desk.raise(token(given.0, given.1));
            assert_eq!(desk.token(), token(greatest.0, greatest.1));
        }
    }
}
