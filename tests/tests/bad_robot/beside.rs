//! A site at work beside the bad robot: what the site has to go on doing, and what the robot may cost its nodes.

use std::time::Duration;

use skep_testnet::Usage;
use skep_tests::Site;

use super::create;

/// How much more memory a node may use after anything that one peer did to it, in bytes: all that the peer may make a
/// node hold, in each possible way, and a third more.
const MORE_BYTES_MAX: u64 = 96 * 1024 * 1024;
/// How much processor time a node may spend on one case. Each case makes the node do a bounded amount of work; this is
/// many times what a debug build takes for that.
const CPU_MAX: Duration = Duration::from_secs(90);
/// Number of voters of these sites; they are the first nodes.
const VOTERS: usize = 3;

/// The state of the site before.
pub(crate) struct Beside {
    processes: Vec<(u32, Usage)>,
    leader: usize,
    term: u64,
}

fn processes(site: &Site) -> Vec<(u32, Usage)> {
    let pids = site.net.nodes.iter().map(|node| node.pid().unwrap());
    pids.map(|pid| (pid, Usage::of(pid).unwrap())).collect()
}

impl Beside {
    /// The state of the site at this instant.
    pub(crate) async fn of(site: &Site) -> Self {
        let leader = site.net.leader().await.unwrap();
        let term = site.net.nodes[leader].client().shard_status().await.unwrap().term;
        Self { processes: processes(site), leader, term }
    }

    /// How much more memory a node uses than before, in bytes. Prints that, and the processor time that the node used.
    pub(crate) fn more(&self, site: &Site, at: usize, what: &str) -> u64 {
        let (pid, before) = self.processes[at];
        assert_eq!(site.net.nodes[at].pid(), Some(pid));
        let now = Usage::of(pid).unwrap();
        let (more, cpu) = (now.rss_bytes.saturating_sub(before.rss_bytes), now.cpu.saturating_sub(before.cpu));
        println!(
            "{what}: n{at} has {} KiB more, {} KiB in all, and took {} ms of a processor",
            more / 1_024,
            now.rss_bytes / 1_024,
            cpu.as_millis()
        );
        more
    }

    /// Checks and prints that no node uses much more memory, or used much processor time.
    pub(crate) fn is_bounded(&self, site: &Site, what: &str) {
        for (at, (pid, before)) in self.processes.iter().enumerate() {
            let more = self.more(site, at, what);
            assert!(more < MORE_BYTES_MAX, "{what}: n{at} has {more} bytes more");
            let cpu = Usage::of(*pid).unwrap().cpu.saturating_sub(before.cpu);
            assert!(cpu < CPU_MAX, "{what}: n{at} took {cpu:?} of a processor");
        }
    }

    /// Checks that all processes are those of before, and do their work.
    pub(crate) async fn works(&self, site: &Site, what: &str) {
        self.is_bounded(site, what);
        for at in 0..VOTERS {
            create(site, at, what).await;
        }
        site.net.until_equal(&[0, 1, 2]).await.unwrap();
        let now: Vec<u32> = processes(site).iter().map(|(pid, _)| *pid).collect();
        assert!(self.processes.iter().map(|(pid, _)| *pid).eq(now), "{what}: a process ended");
    }

    /// Checks that, in addition, no leader had to be elected.
    pub(crate) async fn is_unnoticed(&self, site: &Site, what: &str) {
        self.works(site, what).await;
        let leader = site.net.leader().await.unwrap();
        let term = site.net.nodes[leader].client().shard_status().await.unwrap().term;
        assert_eq!((leader, term), (self.leader, self.term), "{what}: an election was held");
    }
}
