//! What goes wrong between nodes: cuts of both directions, of one direction and between some; thin, slow and flapping
//! links; and loss.

use std::collections::BTreeSet;

use rand::RngExt as _;

use super::faults::Faults;
use super::wrong::{Kind, Mend, Wrong};
use super::{Begun, leader};
use crate::error::LaunchError;
use crate::site::warehouse::DemoSite;

impl Faults {
    /// Sets at the relay what all present faults together make of its links.
    pub(super) fn impose(&self, site: &DemoSite) {
        let (Some(delays), Some(relay)) = (&self.delays, site.net.relay()) else { return };
        let (mut cut, mut thin) = (BTreeSet::new(), BTreeSet::new());
        for Wrong { mend, .. } in &self.wrong {
            cut.extend(mend.severed().iter().copied());
            if let Mend::Thicken(at) = mend {
                thin.insert(*at);
            }
        }
        delays.impose(relay, &cut, &thin);
    }

    /// Sets what a node's own network does to what the node sends and gets.
    pub(super) fn trouble_link(&mut self, site: &DemoSite, kind: Kind) -> Begun {
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

    /// Thins the links of a node.
    pub(super) fn thin(&mut self, site: &DemoSite) -> Option<(Mend, Option<usize>)> {
        site.net.relay()?;
        let at = self.sound_node(site)?;
        self.tell(Kind::ThinLink, &site.net.nodes[at].name);
        Some((Mend::Thicken(at), Some(at)))
    }

    /// Whether a cut may be made. One at a time: the end of one cut would end another.
    pub(super) fn may_cut(&self, site: &DemoSite, kind: Kind) -> bool {
        let known = self.wrong.iter().any(|wrong| matches!(wrong.mend, Mend::Join(_) | Mend::Rejoin(_)));
        let possible = kind != Kind::OneWayCut || Self::hosts(site).is_some() || site.net.relay().is_some();
        !known && possible
    }

    /// Cuts these directions.
    pub(super) fn sever(&self, site: &DemoSite, kind: Kind, pairs: Vec<(usize, usize)>) -> Result<Mend, LaunchError> {
        match Self::hosts(site) {
            Some(hosts) => pairs.iter().try_for_each(|(from, to)| hosts.cut(*from, *to))?,
            // A switch cuts both directions, and tells both ends: a cut in the field tells no node.
            None if kind != Kind::Cut && site.net.relay().is_some() => return Ok(Mend::Rejoin(pairs)),
            None => site.net.throw_switches(&pairs)?,
        }
        Ok(Mend::Join(pairs))
    }

    /// Cuts the leader off from some nodes. No other node is cut off: there are no two sides.
    pub(super) async fn cut_partly(&mut self, site: &DemoSite) -> Begun {
        if !self.may_cut(site, Kind::PartialCut) {
            return Ok(None);
        }
        let Some(leader) = leader(site).await else { return Ok(None) };
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

    /// Splits the nodes into two sides, between which nothing passes, or nothing in one direction.
    pub(super) fn cut(&mut self, site: &DemoSite, kind: Kind) -> Begun {
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
}
