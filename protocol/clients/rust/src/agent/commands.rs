//! Commands, on the side of the agent's software.
//!
//! What was said and not answered is said again on every new stream, so that neither a node that restarts nor a stream
//! that breaks loses or doubles anything.

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

/// Commands that were offered and nobody has taken up yet: as many as a node hands out.
const OFFERS_QUEUED_MAX: usize = INBOX_MAX + INBOX_URGENT_MAX;
/// News of one command that were not looked at. The last of each kind matter, and there are few.
const NEWS_QUEUED_MAX: usize = 32;
/// A node that has just been attached to may not know the command yet: how often it is told again, and how far apart.
const SAID_AGAIN_MAX: u32 = 100;
const SAY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Why a command is not to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// It is not to be started any more.
    #[error("it is not to be started: {0}")]
    Void(String),
    /// It was to be started before now, on this machine's own clock.
    #[error("its time to start passed {late_ms} ms ago")]
    TooLate {
        /// How long ago, in milliseconds.
        late_ms: u64,
    },
    /// The agent's lease was over, on this machine's own clock: another run of its software may have the agent.
    #[error("the agent's lease ended {ago_ms} ms ago; the agent may have another owner")]
    LeaseOver {
        /// How long ago, in milliseconds; 0 if it never ran, or was taken back.
        ago_ms: u64,
    },
    /// Its node does not know it, or the agent is not attached any more.
    #[error("the node does not know it any more")]
    Lost,
    /// Its node holds nothing of it, and hears no word of how it ended any more: its software was gone for days, or what it
    /// said before was recorded and the answer was lost.
    #[error("the node has let go of it: how it ended was recorded before, or is recorded nowhere")]
    Forgotten,
}

/// Until when a command may be begun, and when that was looked at, in milliseconds of this machine's boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartLeft {
    /// When it was looked at.
    pub at_ms: u64,
    /// From when on it must not be begun.
    pub until_ms: u64,
}

/// What is known of one command here.
struct Waiting {
    /// What was said of it last and not answered yet.
    last: Option<Step>,
    news: mpsc::Sender<News>,
    /// How often what was said was ignored since nobody waits for it any more.
    ignored: u32,
}

/// What the stream and the software share of commands.
pub(super) struct CommandDesk {
    /// The groups of an agent that takes commands.
    takes: watch::Sender<Option<Vec<String>>>,
    waiting: std::sync::Mutex<BTreeMap<Vec<u8>, Waiting>>,
    /// The greatest fencing token that this run of the software was given.
    token: std::sync::Mutex<GoToken>,
    /// Commands of which something is to be said.
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

    /// Takes note of the token of a word to go. It is the run of the software that owns the agent, not the word: what was begun
    /// before the node attached it anew is its own all the same.
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

    /// What is to be said now.
    pub(super) fn drain(&self) -> Vec<v1::CommandStep> {
        let mut ids = BTreeSet::new();
        self.to_say.send_if_modified(|to_say| {
            ids = std::mem::take(to_say);
            false
        });
        let mut waiting = self.waiting();
        let mut step = |id: Vec<u8>| {
            let known = waiting.get_mut(&id)?;
            // How far it has come is said once: it is not answered, and soon it is not true any more.
            let said_once = matches!(known.last, Some(Step::Progress(_)));
            // The time to begin, and the lease, count from when it is asked for: from now.
            if let Some(Step::Start(stamp)) = &mut known.last {
                *stamp = boot_ms();
            }
            let step = if said_once { known.last.take() } else { known.last.clone() }?;
            Some(v1::CommandStep { command_id: id, step: Some(step) })
        };
        ids.into_iter().filter_map(&mut step).collect()
    }

    /// On a new stream everything that has no answer is said again.
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

    /// The commands that the software has in its hands. Its node takes whatever else it believes to be under way for lost.
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

    /// The node said something of a command.
    pub(super) fn hear(&self, news: v1::CommandNews) {
        let (id, Some(news)) = (news.command_id, news.news) else { return };
        let mut waiting = self.waiting();
        match news {
            News::Offer(command) => {
                if waiting.contains_key(&id) {
                    // Known already: what was said of it was lost with the stream.
                    drop(waiting);
                    return self.say_again(&id);
                }
                // More than its node would have it name. What is not taken up is not begun, and ends at its deadline.
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
                    // Whoever had it let go of it, and the node has written that down, or does not know it.
                    waiting.remove(&id);
                } else if ignored {
                    drop(waiting);
                    self.say_again(&id);
                }
            }
        }
    }
}

/// The commands that an agent is offered.
pub struct CommandOffers {
    shared: Arc<Shared>,
    offered: mpsc::Receiver<(v1::Command, mpsc::Receiver<News>)>,
}

/// A command that was offered. Nothing may be done yet. One that is dropped is rejected.
pub struct OfferedCommand {
    /// What is asked for.
    pub command: v1::Command,
    open: Open,
}

/// A command that is being done. One that is dropped has failed.
pub struct RunningCommand {
    /// What is asked for.
    pub command: v1::Command,
    open: Open,
    until_ms: u64,
}

/// One command between the software and its node.
struct Open {
    shared: Arc<Shared>,
    id: Vec<u8>,
    news: mpsc::Receiver<News>,
    /// What is said if it is dropped.
    if_dropped: Option<Step>,
}

impl Drop for Open {
    fn drop(&mut self) {
        match self.if_dropped.take() {
            // It stays on the desk until the node has it.
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

    /// The next command that is offered. None when the agent is over. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<OfferedCommand> {
        let mut status = self.shared.status.subscribe();
        let (command, news) = tokio::select! {
            biased;
            offered = self.offered.recv() => offered?,
            _ = status.wait_for(|status| matches!(status, AgentStatus::Ended(_))) => return None,
        };
        let if_dropped = Some(Step::Reject("the agent's software let go of it".to_owned()));
        let open = Open { shared: Arc::clone(&self.shared), id: command.id.clone(), news, if_dropped };
        Some(OfferedCommand { command, open })
    }
}

impl Open {
    /// Says something and waits for the answer to it.
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
                    // Nothing is started without a lease. It is renewed, or the attachment ends: it waits for either.
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

    /// Whether it may be begun now, if it may be until then.
    fn may_begin(&self, until_ms: u64) -> Result<StartLeft, NotStarted> {
        let at_ms = boot_ms();
        match self.shared.holdings().lease(at_ms) {
            Ok(_) if at_ms < until_ms => Ok(StartLeft { at_ms, until_ms }),
            Ok(_) => Err(NotStarted::TooLate { late_ms: at_ms - until_ms }),
            Err(Fenced::LeaseEnded { ago_ms }) => Err(NotStarted::LeaseOver { ago_ms }),
            Err(Fenced::ClaimLost) => Err(NotStarted::LeaseOver { ago_ms: 0 }),
        }
    }

    /// Says how it ended, and waits until that is written down.
    async fn end(mut self, step: Step) -> Result<(), NotStarted> {
        // What is dropped meanwhile ends the same way.
        self.if_dropped = Some(step.clone());
        loop {
            match self.ask(step.clone()).await {
                Ok(News::Recorded(_)) => break,
                Ok(News::Void(_) | News::Go(_) | News::Interrupted(_) | News::Offer(_) | News::Ignored(_)) => {}
                Err(why) => {
                    // Nobody would hear it, however often it is said.
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
    /// Says that it will be done. [`start`](Self::start) says so too.
    pub fn accept(&self) {
        self.open.shared.desk.say(&self.open.id, Step::Accept(v1::AcceptCommand {}));
    }

    /// Says that it will not be done, and waits until that is written down.
    ///
    /// # Errors
    /// [`NotStarted::Lost`] if its node does not know it any more.
    pub async fn reject(self, reason: &str) -> Result<(), NotStarted> {
        self.open.end(Step::Reject(reason.to_owned())).await
    }

    /// Asks to begin, and waits for the word to go, however long the agent's lease is over meanwhile. Nothing may be done
    /// before.
    ///
    /// # Errors
    /// [`NotStarted`]: it must not be done.
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
                // What is given up on is let go of, and said so: its node may have written down that it would begin.
                Ok(News::Offer(_) | News::Ignored(_)) | Err(_) => return Err(NotStarted::Lost),
            };
            let within = go.within.and_then(|within| Duration::try_from(within).ok()).unwrap_or_default();
            let until_ms = go.stamp.saturating_add(u64::try_from(within.as_millis()).unwrap_or(0));
            self.open.shared.desk.raise(convert::go_token(go.token));
            self.open.if_dropped = Some(Step::Failed("the agent's software let go of it".to_owned()));
            match self.open.may_begin(until_ms) {
                Ok(_) => return Ok(RunningCommand { command: self.command, open: self.open, until_ms }),
                // A process that was suspended between the word and now asks for another: there may be time to the deadline.
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
    /// Whether it may still be begun, now: to be asked immediately before the first effect in the world.
    ///
    /// # Errors
    /// [`NotStarted::TooLate`], or [`NotStarted::LeaseOver`].
    pub fn check(&self) -> Result<StartLeft, NotStarted> {
        self.open.may_begin(self.until_ms)
    }

    /// The fencing token: to be shown to what the command has its first effect on, which refuses a lower one than it has seen
    /// from this agent. The greatest that this run of the software was given.
    pub fn token(&self) -> GoToken {
        self.open.shared.desk.token()
    }

    /// Says how far it has come, in thousandths of the work. The last word counts, and it is no promise that anybody hears
    /// of it: the shard is told at most once a second, and what is lost with a stream or a node is not said again.
    pub fn progress(&self, permille: u16, note: &str) {
        let said = v1::SaidProgress { permille: permille.min(1_000).into(), note: note.to_owned() };
        self.open.shared.desk.say(&self.open.id, Step::Progress(said));
    }

    /// Says that it was done, and waits until that is written down.
    ///
    /// # Errors
    /// [`NotStarted::Forgotten`] if its node has let go of it, [`NotStarted::Lost`] if its node does not know it, or the agent is
    /// not attached any more.
    pub async fn succeed(self, result: Vec<u8>) -> Result<(), NotStarted> {
        self.open.end(Step::Succeeded(result)).await
    }

    /// Says that it failed, and waits until that is written down.
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
        // The software gives one up. It says so until its node has that, or shows that it does not know it.
        drop(offered.try_recv().unwrap());
        desk.say(&id(1), Step::Reject("the agent's software let go of it".to_owned()));
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
