//! What goes wrong, when, and how it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_client::Settings;
use tokio::time::Instant;

use super::ambush::Ambush;
use super::disks::{SmallDisk, damage};
use super::links::Delays;
use super::watchers::Watchers;
use super::wrong::{Kind, LASTS_MS, Mend, Wrong};
use super::{Begun, ChaosOptions, Step, leader};
use crate::record::{Story, StoryRecord, boot_ns};
use crate::site::child::suspend;
use crate::site::hosts::Hosts;
use crate::site::warehouse::DemoSite;

/// How many things are wrong at a time.
const AT_A_TIME: usize = 2;
/// The pause between two things that go wrong, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// How long a thin link stays thin, in milliseconds: long enough for a node to fall behind on it, and to catch up.
const THIN_MS: std::ops::Range<u64> = 5_000..60_000;
/// How long a node has few descriptors, in milliseconds: long enough to start, and for watchers to take them.
const FEW_MS: std::ops::Range<u64> = 3_000..12_000;
/// How long one attempt to add a voter again may take: a handful of round trips of up to 600 ms, on a busy machine. An
/// attempt that is not over by then goes on, and the operator asks again.
const TAKE_IN_MAX: Duration = Duration::from_secs(10);
/// How long that is tried at the end, once nothing else is wrong.
const TAKE_IN_AT_LAST_MAX: Duration = Duration::from_secs(180);

/// Everything that goes wrong in a run.
pub(super) struct Faults {
    pub(super) rng: SmallRng,
    pub(super) story: Story,
    next: Instant,
    lease_ms: u64,
    pub(super) voters: usize,
    kinds: &'static [Kind],
    pub(super) wrong: Vec<Wrong>,
    pub(super) counts: BTreeMap<Kind, usize>,
    /// Whether this process is root: there are namespaces, and it can mount file systems.
    as_root: bool,
    /// What the relay does when nothing is wrong; none without a relay.
    pub(super) delays: Option<Delays>,
    small_disk: Option<SmallDisk>,
    /// The voter that lost its disk and was not added again.
    lost: Option<usize>,
    /// Voters that lost their disk, whether they were added again or not.
    lost_disks: BTreeSet<usize>,
    /// Nodes that ended though nothing was done to them.
    pub(super) fallen: Vec<String>,
    /// The callers that take the descriptors of a node that has few.
    pub(super) watchers: Option<Watchers>,
    /// The thread that waits for a rotation.
    pub(super) ambush: Option<Ambush>,
}

impl Faults {
    pub(super) fn new(options: &ChaosOptions, story: Story, site: &DemoSite) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(options.seed),
            story,
            next: Instant::now(),
            lease_ms: options.lease_ttl_ms,
            voters: options.site.voters,
            kinds: options.faults.kinds(),
            wrong: Vec::new(),
            counts: BTreeMap::new(),
            as_root: options.site.hosts.is_some(),
            delays: site.net.relay().map(|relay| Delays::draw(relay, options.seed)),
            small_disk: None,
            lost: None,
            lost_disks: BTreeSet::new(),
            fallen: Vec::new(),
            watchers: None,
            ambush: None,
        }
    }

    /// Nodes that ended though nothing was done to them.
    pub(super) fn fallen(&self) -> &[String] {
        &self.fallen
    }

    /// Voters that lost their disk.
    pub(super) fn lost_disks(&self) -> &BTreeSet<usize> {
        &self.lost_disks
    }

    /// What went wrong, and how often.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect()
    }

    pub(super) fn hosts(site: &DemoSite) -> Option<&Hosts> {
        site.net.hosts()
    }

    /// Mends what is due, and makes something else go wrong.
    pub(super) async fn step(&mut self, site: &mut DemoSite) -> Step {
        let now = Instant::now();
        self.look_at_ambush(site);
        let due = self.wrong.iter().enumerate().filter(|(_, wrong)| wrong.until <= now);
        if let Some((at, _)) = due.min_by_key(|(_, wrong)| wrong.until) {
            let wrong = self.wrong.swap_remove(at);
            self.impose(site);
            self.undo(site, wrong.mend)?;
        }
        self.raise_fallen(site)?;
        self.take_in(site).await;
        // An extra run of a robot's software does not keep other things from going wrong.
        let at_once = self.wrong.iter().filter(|wrong| !matches!(wrong.mend, Mend::EndFormer(_))).count();
        if now < self.next || at_once >= AT_A_TIME {
            return Ok(());
        }
        self.next = now + Duration::from_millis(self.rng.random_range(PAUSE_MS));
        let kind = self.kinds[self.rng.random_range(0..self.kinds.len())];
        self.begin(site, kind).await
    }

    /// Whether nothing is wrong with a node.
    pub(super) fn is_sound(&self, site: &DemoSite, at: usize) -> bool {
        !self.is_taken(at) && site.net.nodes[at].pid().is_some()
    }

    /// Whether something is wrong with a node, or it is to be added again.
    pub(super) fn is_taken(&self, at: usize) -> bool {
        self.wrong.iter().any(|wrong| wrong.node == Some(at)) || self.lost == Some(at)
    }

    /// A node with which nothing is wrong.
    pub(super) fn sound_node(&mut self, site: &DemoSite) -> Option<usize> {
        let at = self.rng.random_range(0..site.net.nodes.len());
        self.is_sound(site, at).then_some(at)
    }

    async fn begin(&mut self, site: &mut DemoSite, kind: Kind) -> Step {
        let lasts = match kind {
            Kind::ThinLink => THIN_MS,
            Kind::FewDescriptors => FEW_MS,
            _ => LASTS_MS,
        };
        let mut until = Instant::now() + Duration::from_millis(self.rng.random_range(lasts));
        // A suspension only counts if it is longer than a lease. The same holds for what separates a run of a robot's
        // software from the others while another run follows it.
        if matches!(kind, Kind::PauseNode | Kind::PauseRobot | Kind::MoveRobot) {
            until = until.max(Instant::now() + Duration::from_millis(self.lease_ms * 3 / 2));
        }
        let begun = match kind {
            Kind::Kill | Kind::KillLeader => self.kill(site, kind).await,
            Kind::KillRobot | Kind::PauseRobot => self.trouble_robot(site, kind)?,
            Kind::MoveRobot => self.move_robot(site, until)?,
            Kind::PauseNode => match self.sound_node(site) {
                Some(at) => {
                    self.pause(site, at)?;
                    Some((Mend::Resume(at), Some(at)))
                }
                None => None,
            },
            Kind::Cut | Kind::OneWayCut => self.cut(site, kind)?,
            Kind::PartialCut => self.cut_partly(site).await?,
            Kind::ThinLink => self.thin(site),
            Kind::Loss | Kind::SlowLink | Kind::Flap => self.trouble_link(site, kind)?,
            Kind::DiskFull => self.fill_disk(site)?,
            Kind::Wipe | Kind::Corrupt => self.lose_disk(site, kind)?,
            Kind::FewDescriptors => self.starve(site)?,
            Kind::KillAtRotation => {
                // The fault counts once it has happened.
                self.lay_ambush(site);
                None
            }
        };
        let Some((mend, node)) = begun else { return Ok(()) };
        *self.counts.entry(kind).or_default() += 1;
        self.wrong.push(Wrong { until, mend, node });
        self.impose(site);
        Ok(())
    }

    pub(super) fn tell(&self, kind: Kind, name: &str) {
        self.story.say(&format!("{}: {name}", kind.name()));
        let (kind, name) = (kind.name().to_owned(), name.to_owned());
        self.story.record(&StoryRecord::Fault { at_ns: boot_ns(), fault: kind, name });
    }

    async fn kill(&mut self, site: &mut DemoSite, kind: Kind) -> Option<(Mend, Option<usize>)> {
        let at = match kind {
            Kind::KillLeader => leader(site).await.filter(|at| self.is_sound(site, *at))?,
            _ => self.sound_node(site)?,
        };
        self.tell(kind, &site.net.nodes[at].name.clone());
        self.killed(site.net.nodes[at].name.clone());
        site.net.kill(at);
        Some((Mend::Start(at), Some(at)))
    }

    pub(super) fn killed(&self, name: String) {
        self.story.record(&StoryRecord::Killed { at_ns: boot_ns(), name, leader: false, clock: 0, held: Vec::new() });
    }

    fn pause(&self, site: &DemoSite, at: usize) -> Step {
        let node = &site.net.nodes[at];
        self.tell(Kind::PauseNode, &node.name);
        self.story.record(&StoryRecord::Paused { at_ns: boot_ns(), name: node.name.clone() });
        node.pid().map_or(Ok(()), |pid| suspend(pid, true))
    }

    /// Fills up the disk of the last voter. The node gets a file system of its own for that, while it is down.
    fn fill_disk(&mut self, site: &mut DemoSite) -> Begun {
        let at = self.voters - 1;
        if !self.as_root || self.is_taken(at) {
            return Ok(None);
        }
        if self.small_disk.is_none() {
            site.net.kill(at);
            self.killed(site.net.nodes[at].name.clone());
            self.small_disk = Some(SmallDisk::mount(&site.net.nodes[at].dir.join("data"))?);
            site.net.start(at)?;
        }
        self.tell(Kind::DiskFull, &site.net.nodes[at].name.clone());
        if let Some(disk) = &self.small_disk {
            disk.fill()?;
        }
        Ok(Some((Mend::FreeDisk, Some(at))))
    }

    /// Takes a voter's disk, or a byte of it. One voter at a time: Skep promises nothing for more.
    fn lose_disk(&mut self, site: &mut DemoSite, kind: Kind) -> Begun {
        let at = self.rng.random_range(0..self.voters);
        let others_down = self.wrong.iter().any(|wrong| wrong.node.is_some_and(|node| node < self.voters));
        let own_disk = self.small_disk.is_some() && at == self.voters - 1;
        if self.lost.is_some() || others_down || own_disk {
            return Ok(None);
        }
        self.tell(kind, &site.net.nodes[at].name.clone());
        self.killed(site.net.nodes[at].name.clone());
        site.net.kill(at);
        self.lost = Some(at);
        self.lost_disks.insert(at);
        if kind == Kind::Wipe {
            site.net.wipe(at)?;
        } else {
            damage(&site.net.nodes[at].dir.join("data").join("wal"), &mut self.rng)?;
        }
        Ok(Some((Mend::Start(at), Some(at))))
    }

    fn undo(&mut self, site: &mut DemoSite, mend: Mend) -> Step {
        match mend {
            Mend::Start(at) => self.start(site, at)?,
            Mend::StartAnew(at) => {
                self.watchers = None;
                self.killed(site.net.nodes[at].name.clone());
                site.net.kill(at);
                self.start(site, at)?;
            }
            Mend::GiveDescriptors(at) => {
                self.watchers = None;
                site.net.limit_descriptors(at, None)?;
            }
            Mend::StartRobot(at) => site.robots[at].start()?,
            Mend::StartElsewhere(at, to) => self.arrive(site, at, to)?,
            Mend::Resume(at) => site.net.nodes[at].pid().map_or(Ok(()), |pid| suspend(pid, false))?,
            Mend::ResumeRobot(at) => self.wake(&site.robots[at])?,
            Mend::ResumeFormer(at) => site.former(at).map_or(Ok(()), |former| self.wake(former))?,
            Mend::EndFormer(at) => self.end_former(site, at),
            Mend::FreeDisk => {
                if let Some(disk) = &self.small_disk {
                    disk.free()?;
                }
            }
            // The relay was told already.
            Mend::Rejoin(_) | Mend::Thicken(_) => {}
            Mend::Join(_) if Self::hosts(site).is_none() => site.net.throw_switches(&[])?,
            link => {
                let Some(hosts) = Self::hosts(site) else { return Ok(()) };
                match link {
                    Mend::Join(pairs) => pairs.iter().try_for_each(|(from, to)| hosts.join(*from, *to))?,
                    Mend::StopLosing(at) => hosts.lose(at, 0)?,
                    Mend::Unshape(at) => hosts.slow_down(at, None)?,
                    Mend::Plug(at) => hosts.plug(at, true)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Starts a node, unless something else has done that meanwhile.
    fn start(&self, site: &mut DemoSite, at: usize) -> Step {
        if site.net.nodes[at].pid().is_some() {
            return Ok(());
        }
        site.net.start(at)?;
        self.story.say(&format!("{} is started again", site.net.nodes[at].name));
        let name = site.net.nodes[at].name.clone();
        self.story.record(&StoryRecord::Restarted { at_ns: boot_ns(), name });
        Ok(())
    }

    /// Does what an operator does with a voter that lost its disk: wipes it if it refuses to start, and then has the
    /// leader add it again under its new incarnation.
    async fn take_in(&mut self, site: &mut DemoSite) {
        let Some(at) = self.lost else { return };
        if self.wrong.iter().any(|wrong| wrong.node == Some(at)) {
            return;
        }
        if site.net.nodes[at].has_ended() {
            self.story.say(&format!("{} refuses to start; its data is given up", site.net.nodes[at].name));
            site.net.kill(at);
            if site.net.wipe(at).is_err() || site.net.start(at).is_err() {
                return;
            }
        }
        let settings = Settings { patience: TAKE_IN_MAX, attempt_timeout: TAKE_IN_MAX, ..Settings::default() };
        let client = |at: usize| site.net.nodes[at].client_with(settings);
        let taking = async {
            // The node runs, and says its incarnation: the leader may still know the former one.
            let present = client(at).node_status().await.ok()?.incarnation;
            let client = client(leader(site).await?);
            client.add_voter(&site.net.nodes[at].id).await.ok()?;
            let voters = client.shard_status().await.ok()?.voters;
            voters.iter().any(|voter| voter.incarnation == present).then_some(())
        };
        if tokio::time::timeout(TAKE_IN_MAX, taking).await.ok().flatten().is_some() {
            self.story.say(&format!("{} is a voter again", site.net.nodes[at].name));
            self.lost = None;
        }
    }

    /// Starts nodes again that ended by themselves, and notes that they did.
    fn raise_fallen(&mut self, site: &mut DemoSite) -> Step {
        for at in 0..site.net.nodes.len() {
            if self.lost == Some(at) || !site.net.nodes[at].has_ended() {
                continue;
            }
            // The ambush may have killed it since the last look.
            self.look_at_ambush(site);
            if site.net.nodes[at].has_ended() {
                let name = site.net.nodes[at].name.clone();
                self.story.say(&format!("{name} ended by itself"));
                self.fallen.push(name);
                site.net.kill(at);
                site.net.start(at)?;
            }
        }
        Ok(())
    }

    /// Mends everything.
    pub(super) async fn mend(&mut self, site: &mut DemoSite) -> Step {
        self.call_ambush_off(site);
        let mut wrong = std::mem::take(&mut self.wrong);
        // In the order in which it would have been mended: a run that was left behind wakes before it is ended.
        wrong.sort_by_key(|wrong| wrong.until);
        self.impose(site);
        for Wrong { mend, .. } in wrong {
            self.undo(site, mend)?;
        }
        let patience = Instant::now() + TAKE_IN_AT_LAST_MAX;
        while self.lost.is_some() && Instant::now() < patience {
            self.take_in(site).await;
            tokio::time::sleep(super::STEP).await;
        }
        Ok(())
    }
}
