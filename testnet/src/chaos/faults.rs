//! What goes wrong, when, and how it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_client::Settings;
use tokio::time::Instant;

use super::disks::{SmallDisk, damage};
use super::links::Delays;
use super::{ChaosOptions, Step};
use crate::child::suspend;
use crate::demo::{DemoSite, Story, StoryRecord};
use crate::hosts::Hosts;
use crate::record::boot_ns;

/// Things that are wrong at a time.
const AT_A_TIME: usize = 2;
/// Pause between two things that go wrong, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 300..2_500;
/// How long one lasts, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 500..8_000;
/// How long a thin link stays thin, in milliseconds: long enough for somebody to fall behind on it, and to catch up.
const THIN_MS: std::ops::Range<u64> = 5_000..60_000;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Kill,
    KillLeader,
    KillRobot,
    PauseNode,
    PauseRobot,
    Cut,
    OneWayCut,
    PartialCut,
    Loss,
    SlowLink,
    ThinLink,
    Flap,
    DiskFull,
    Wipe,
    Corrupt,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillLeader => "kill-leader",
            Self::KillRobot => "kill-robot",
            Self::PauseNode => "pause-node",
            Self::PauseRobot => "pause-robot",
            Self::Cut => "cut",
            Self::OneWayCut => "one-way-cut",
            Self::PartialCut => "partial-cut",
            Self::Loss => "loss",
            Self::SlowLink => "slow-link",
            Self::ThinLink => "thin-link",
            Self::Flap => "flap",
            Self::DiskFull => "disk-full",
            Self::Wipe => "wipe",
            Self::Corrupt => "corrupt",
        }
    }
}

/// How something is mended.
#[derive(Clone, Debug)]
enum Mend {
    Start(usize),
    StartRobot(usize),
    Resume(usize),
    ResumeRobot(usize),
    Join(Vec<(usize, usize)>),
    /// Only the relay cut these.
    Rejoin(Vec<(usize, usize)>),
    /// The links around a node are thin.
    Thicken(usize),
    StopLosing(usize),
    Unshape(usize),
    Plug(usize),
    FreeDisk,
}

/// What goes wrong in a run.
pub(super) struct Faults {
    rng: SmallRng,
    story: Story,
    next: Instant,
    lease_ms: u64,
    voters: usize,
    /// What is wrong, until when, and which node it concerns.
    wrong: Vec<(Instant, Mend, Option<usize>)>,
    counts: BTreeMap<Kind, usize>,
    /// Namespaces are there, and file systems can be mounted.
    as_root: bool,
    /// What the relay does when nothing is wrong; none without one.
    delays: Option<Delays>,
    small_disk: Option<SmallDisk>,
    /// The voter that lost its disk and was not taken in again.
    lost: Option<usize>,
    /// Nodes that ended though nothing was done to them.
    fallen: Vec<String>,
}

impl Faults {
    pub(super) fn new(options: &ChaosOptions, story: Story, site: &DemoSite) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(options.seed),
            story,
            next: Instant::now(),
            lease_ms: options.lease_ttl_ms,
            voters: options.site.voters,
            wrong: Vec::new(),
            counts: BTreeMap::new(),
            as_root: options.site.hosts.is_some(),
            delays: site.net.relay().map(|relay| Delays::draw(relay, options.seed)),
            small_disk: None,
            lost: None,
            fallen: Vec::new(),
        }
    }

    /// Nodes that ended though nothing was done to them.
    pub(super) fn fallen(&self) -> &[String] {
        &self.fallen
    }

    /// What went wrong, and how often.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect()
    }

    fn hosts(site: &DemoSite) -> Option<&Hosts> {
        site.net.hosts()
    }

    /// Mends what is due, and has something else go wrong.
    pub(super) async fn step(&mut self, site: &mut DemoSite) -> Step {
        let now = Instant::now();
        let due = self.wrong.iter().position(|(until, ..)| *until <= now);
        if let Some(at) = due {
            let (_, mend, _) = self.wrong.swap_remove(at);
            self.impose(site);
            self.undo(site, mend).await?;
        }
        self.raise_fallen(site)?;
        self.take_in(site).await;
        if now < self.next || self.wrong.len() >= AT_A_TIME {
            return Ok(());
        }
        self.next = now + Duration::from_millis(self.rng.random_range(PAUSE_MS));
        let kinds = [
            Kind::Kill,
            Kind::Kill,
            Kind::KillLeader,
            Kind::KillRobot,
            Kind::PauseNode,
            Kind::PauseRobot,
            Kind::Cut,
            Kind::Cut,
            Kind::OneWayCut,
            Kind::PartialCut,
            Kind::Loss,
            Kind::SlowLink,
            Kind::ThinLink,
            Kind::Flap,
            Kind::DiskFull,
            Kind::Wipe,
            Kind::Corrupt,
        ];
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        self.begin(site, kind).await
    }

    /// A node that nothing is wrong with.
    fn sound_node(&mut self, site: &DemoSite) -> Option<usize> {
        let at = self.rng.random_range(0..site.net.nodes.len());
        let taken = self.wrong.iter().any(|(_, _, node)| *node == Some(at)) || self.lost == Some(at);
        (!taken && site.net.nodes[at].pid().is_some()).then_some(at)
    }

    async fn begin(&mut self, site: &mut DemoSite, kind: Kind) -> Step {
        let lasts = if kind == Kind::ThinLink { THIN_MS } else { LASTS_MS };
        let until = Instant::now() + Duration::from_millis(self.rng.random_range(lasts));
        let mend = match kind {
            Kind::Kill | Kind::KillLeader => self.kill(site, kind).await,
            Kind::KillRobot | Kind::PauseRobot => self.trouble_robot(site, kind)?,
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
            Kind::DiskFull => self.fill_disk(site).await?,
            Kind::Wipe | Kind::Corrupt => self.lose_disk(site, kind)?,
        };
        let Some((mend, node)) = mend else { return Ok(()) };
        // A suspension is one only if it is longer than a lease.
        let longer = Duration::from_millis(self.lease_ms * 3 / 2);
        let suspended = matches!(mend, Mend::Resume(_) | Mend::ResumeRobot(_));
        let until = if suspended { until.max(Instant::now() + longer) } else { until };
        *self.counts.entry(kind).or_default() += 1;
        self.wrong.push((until, mend, node));
        self.impose(site);
        Ok(())
    }

    /// Has the relay do what everything that is wrong makes of its links.
    fn impose(&self, site: &DemoSite) {
        let (Some(delays), Some(relay)) = (&self.delays, site.net.relay()) else { return };
        let (mut cut, mut thin) = (BTreeSet::new(), BTreeSet::new());
        for (_, mend, _) in &self.wrong {
            match mend {
                Mend::Join(pairs) | Mend::Rejoin(pairs) => cut.extend(pairs.iter().copied()),
                Mend::Thicken(at) => {
                    thin.insert(*at);
                }
                _ => {}
            }
        }
        delays.impose(relay, &cut, &thin);
    }

    fn tell(&self, kind: Kind, name: &str) {
        self.story.say(&format!("{}: {name}", kind.name()));
        let (kind, name) = (kind.name().to_owned(), name.to_owned());
        self.story.record(&StoryRecord::Fault { at_ns: boot_ns(), fault: kind, name });
    }

    async fn kill(&mut self, site: &mut DemoSite, kind: Kind) -> Option<(Mend, Option<usize>)> {
        let mut at = self.sound_node(site)?;
        if kind == Kind::KillLeader {
            let leader = tokio::time::timeout(Duration::from_millis(500), site.net.leader()).await.ok()?.ok()?;
            let taken = self.wrong.iter().any(|(_, _, node)| *node == Some(leader)) || self.lost == Some(leader);
            at = if taken { return None } else { leader };
        }
        self.tell(kind, &site.net.nodes[at].name.clone());
        self.killed(site.net.nodes[at].name.clone());
        site.net.kill(at);
        Some((Mend::Start(at), Some(at)))
    }

    fn killed(&self, name: String) {
        self.story.record(&StoryRecord::Killed { at_ns: boot_ns(), name, leader: false, clock: 0, held: Vec::new() });
    }

    fn pause(&self, site: &DemoSite, at: usize) -> Step {
        let node = &site.net.nodes[at];
        self.tell(Kind::PauseNode, &node.name);
        self.story.record(&StoryRecord::Paused { at_ns: boot_ns(), name: node.name.clone() });
        node.pid().map_or(Ok(()), |pid| suspend(pid, true))
    }

    fn trouble_robot(
        &mut self,
        site: &mut DemoSite,
        kind: Kind,
    ) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        let at = self.rng.random_range(0..site.robots.len());
        let busy = |(_, mend, _): &(Instant, Mend, Option<usize>)| matches!(mend, Mend::StartRobot(known) | Mend::ResumeRobot(known) if *known == at);
        if self.wrong.iter().any(busy) {
            return Ok(None);
        }
        let name = site.robots[at].name.clone();
        self.tell(kind, &name);
        if kind == Kind::KillRobot {
            self.killed(name);
            site.robots[at].kill();
            return Ok(Some((Mend::StartRobot(at), None)));
        }
        self.story.record(&StoryRecord::Paused { at_ns: boot_ns(), name });
        if let Some(pid) = site.robots[at].pid() {
            suspend(pid, true)?;
        }
        Ok(Some((Mend::ResumeRobot(at), None)))
    }

    fn trouble_link(
        &mut self,
        site: &DemoSite,
        kind: Kind,
    ) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        let Some(hosts) = Self::hosts(site) else { return Ok(None) };
        let Some(at) = self.sound_node(site) else { return Ok(None) };
        let name = site.net.nodes[at].name.clone();
        self.tell(kind, &name);
        let mend = match kind {
            Kind::Loss => {
                hosts.lose(at, self.rng.random_range(5..40))?;
                Mend::StopLosing(at)
            }
            Kind::SlowLink => {
                hosts.slow_down(at, Some(self.rng.random_range(64..2_000)))?;
                Mend::Unshape(at)
            }
            _ => {
                hosts.plug(at, false)?;
                Mend::Plug(at)
            }
        };
        Ok(Some((mend, Some(at))))
    }

    /// The links of a node carry little.
    fn thin(&mut self, site: &DemoSite) -> Option<(Mend, Option<usize>)> {
        site.net.relay()?;
        let at = self.sound_node(site)?;
        self.tell(Kind::ThinLink, &site.net.nodes[at].name);
        Some((Mend::Thicken(at), Some(at)))
    }

    /// One cut at a time: what joins one would join another.
    fn may_cut(&self, site: &DemoSite, kind: Kind) -> bool {
        let known = self.wrong.iter().any(|(_, mend, _)| matches!(mend, Mend::Join(_) | Mend::Rejoin(_)));
        let possible = kind != Kind::OneWayCut || Self::hosts(site).is_some() || site.net.relay().is_some();
        !known && possible
    }

    /// Nothing goes these ways.
    fn sever(&self, site: &DemoSite, kind: Kind, pairs: Vec<(usize, usize)>) -> Result<Mend, crate::LaunchError> {
        match Self::hosts(site) {
            Some(hosts) => pairs.iter().try_for_each(|(from, to)| hosts.cut(*from, *to))?,
            // A switch cuts both ways, and both ends are told: a cut of the field tells nobody.
            None if kind != Kind::Cut && site.net.relay().is_some() => return Ok(Mend::Rejoin(pairs)),
            None => site.net.throw_switches(&pairs)?,
        }
        Ok(Mend::Join(pairs))
    }

    /// The leader is cut off from some. Nobody else is: there are no two sides.
    async fn cut_partly(&mut self, site: &DemoSite) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        if !self.may_cut(site, Kind::PartialCut) {
            return Ok(None);
        }
        let asked = tokio::time::timeout(Duration::from_millis(500), site.net.leader()).await;
        let Ok(Ok(leader)) = asked else { return Ok(None) };
        let others = (0..site.net.nodes.len()).filter(|at| *at != leader);
        let cut_off: Vec<usize> = others.filter(|_| self.rng.random_bool(0.5)).collect();
        if cut_off.is_empty() {
            return Ok(None);
        }
        let name = |at: &usize| site.net.nodes[*at].name.as_str();
        let names = cut_off.iter().map(name).collect::<Vec<_>>().join(",");
        self.tell(Kind::PartialCut, &format!("{} from {names}", name(&leader)));
        let pairs = cut_off.into_iter().flat_map(|at| [(leader, at), (at, leader)]).collect();
        Ok(Some((self.sever(site, Kind::PartialCut, pairs)?, None)))
    }

    fn cut(&mut self, site: &DemoSite, kind: Kind) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        if !self.may_cut(site, kind) {
            return Ok(None);
        }
        let count = site.net.nodes.len();
        let side: Vec<bool> = (0..count).map(|_| self.rng.random_bool(0.4)).collect();
        let names: Vec<&str> = (0..count).filter(|n| side[*n]).map(|n| site.net.nodes[n].name.as_str()).collect();
        self.tell(kind, &names.join(","));
        let mut pairs = Vec::new();
        for from in (0..count).filter(|n| side[*n]) {
            for to in (0..count).filter(|n| !side[*n]) {
                pairs.push((from, to));
                pairs.extend((kind == Kind::Cut).then_some((to, from)));
            }
        }
        Ok(Some((self.sever(site, kind, pairs)?, None)))
    }

    /// The disk of the last voter fills up. It gets a file system of its own for it, while it is down.
    async fn fill_disk(&mut self, site: &mut DemoSite) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        let at = self.voters - 1;
        let taken = self.wrong.iter().any(|(_, _, node)| *node == Some(at)) || self.lost == Some(at);
        if !self.as_root || taken {
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

    /// A voter loses its disk, or a byte of it. One at a time: more would be more than can be promised.
    fn lose_disk(
        &mut self,
        site: &mut DemoSite,
        kind: Kind,
    ) -> Result<Option<(Mend, Option<usize>)>, crate::LaunchError> {
        let at = self.rng.random_range(0..self.voters);
        let others_down = self.wrong.iter().any(|(_, _, node)| node.is_some_and(|node| node < self.voters));
        let own_disk = self.small_disk.is_some() && at == self.voters - 1;
        if self.lost.is_some() || others_down || own_disk {
            return Ok(None);
        }
        self.tell(kind, &site.net.nodes[at].name.clone());
        self.killed(site.net.nodes[at].name.clone());
        site.net.kill(at);
        self.lost = Some(at);
        if kind == Kind::Wipe {
            site.net.wipe(at)?;
        } else {
            damage(&site.net.nodes[at].dir.join("data").join("wal"), &mut self.rng)?;
        }
        Ok(Some((Mend::Start(at), Some(at))))
    }

    async fn undo(&mut self, site: &mut DemoSite, mend: Mend) -> Step {
        match mend {
            Mend::Start(at) => {
                site.net.start(at)?;
                self.story.say(&format!("{} is started again", site.net.nodes[at].name));
                let name = site.net.nodes[at].name.clone();
                self.story.record(&StoryRecord::Restarted { at_ns: boot_ns(), name });
            }
            Mend::StartRobot(at) => site.robots[at].start()?,
            Mend::Resume(at) => site.net.nodes[at].pid().map_or(Ok(()), |pid| suspend(pid, false))?,
            Mend::ResumeRobot(at) => {
                site.robots[at].pid().map_or(Ok(()), |pid| suspend(pid, false))?;
                let name = site.robots[at].name.clone();
                self.story.record(&StoryRecord::Resumed { at_ns: boot_ns(), name });
            }
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

    /// What an operator does with a voter that lost its disk: one that refuses to start is wiped, and then the leader
    /// takes it in again under its new incarnation.
    async fn take_in(&mut self, site: &mut DemoSite) {
        let Some(at) = self.lost else { return };
        if self.wrong.iter().any(|(_, _, node)| *node == Some(at)) {
            return;
        }
        if site.net.nodes[at].has_ended() {
            self.story.say(&format!("{} refuses to start; its data is given up", site.net.nodes[at].name));
            site.net.kill(at);
            if site.net.wipe(at).is_err() || site.net.start(at).is_err() {
                return;
            }
        }
        let patience = site.patience();
        let client = |at: usize| site.net.nodes[at].client_with(Settings { patience, ..Settings::default() });
        let taking = async {
            // It runs, and says under which incarnation: the leader may still take it for what it was.
            let present = client(at).node_status().await.ok()?.incarnation;
            let leader = site.net.leader().await.ok()?;
            let client = client(leader);
            client.add_voter(&site.net.nodes[at].id).await.ok()?;
            let voters = client.shard_status().await.ok()?.voters;
            voters.iter().any(|voter| voter.incarnation == present).then_some(())
        };
        if tokio::time::timeout(4 * patience, taking).await.ok().flatten().is_some() {
            self.story.say(&format!("{} is a voter again", site.net.nodes[at].name));
            self.lost = None;
        }
    }

    /// Starts nodes again that ended by themselves, and keeps in mind that they did.
    fn raise_fallen(&mut self, site: &mut DemoSite) -> Step {
        for at in 0..site.net.nodes.len() {
            if self.lost != Some(at) && site.net.nodes[at].has_ended() {
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
        let wrong = std::mem::take(&mut self.wrong);
        self.impose(site);
        for (_, mend, _) in wrong {
            self.undo(site, mend).await?;
        }
        let patience = Instant::now() + Duration::from_secs(120);
        while self.lost.is_some() && Instant::now() < patience {
            self.take_in(site).await;
            tokio::time::sleep(super::STEP).await;
        }
        Ok(())
    }
}
