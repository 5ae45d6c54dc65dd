//! Nodes that have few descriptors, while more callers than that watch them.

use rand::RngExt as _;

use super::Begun;
use super::faults::Faults;
use super::watchers::Watchers;
use super::wrong::{Kind, Mend};
use crate::site::process::Usage;
use crate::site::warehouse::DemoSite;

/// How many descriptors a node may have beyond those that it had open: far fewer than there are watchers.
const SPARE: std::ops::Range<u64> = 0..32;
/// The fewest descriptors that a node is started with.
const FEWEST: u64 = 96;

impl Faults {
    /// Leaves a node hardly more descriptors than it had open. Either it is started anew with them, and knows the
    /// limit; or they become so few while it runs, as on a machine whose files and sockets are all taken. Watchers take
    /// what is left.
    pub(super) fn starve(&mut self, site: &mut DemoSite) -> Begun {
        if self.watchers.is_some() {
            return Ok(None);
        }
        let Some(at) = self.sound_node(site) else { return Ok(None) };
        let Some(open) = site.net.nodes[at].pid().and_then(Usage::of).map(|usage| usage.descriptors) else {
            return Ok(None);
        };
        let name = site.net.nodes[at].name.clone();
        let few = open + self.rng.random_range(SPARE);
        let mend = if self.rng.random_bool(0.5) {
            let few = few.max(FEWEST);
            self.tell(Kind::FewDescriptors, &format!("{name}, {few} from its start"));
            self.killed(name);
            site.net.kill(at);
            site.net.start_with_descriptors(at, few)?;
            Mend::StartAnew(at)
        } else {
            self.tell(Kind::FewDescriptors, &format!("{name}, {few} from now on"));
            site.net.limit_descriptors(at, Some(few))?;
            Mend::GiveDescriptors(at)
        };
        self.watchers = Some(Watchers::start(&site.net.nodes[at]));
        Ok(Some((mend, Some(at))))
    }
}
