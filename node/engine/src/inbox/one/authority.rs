//! What operators were granted: no statement about one of them is believed that is older than one that was seen.
//!
//! A leader that lies may withhold that an operator was revoked. Once a robot's node has heard of it, nobody can have it take
//! what was stated before for what holds.

use std::sync::Arc;

use skep_protocol::authority::{AuthorityNews, SignedGrant, stated};
use skep_protocol::ids::ShardId;
use skep_protocol::journal::JournalWrite;
use skep_protocol::limits;
use skep_protocol::statement::Place;
use skep_protocol::text::SiteName;

use super::{Inbox, Out};

/// That of the first statement about an operator, as a rule: there is none before it, and nothing to be written down.
const FIRST_SERIAL: u64 = 1;

impl Inbox {
    /// Where statements hold that are for its agent; none before it was told.
    pub(super) fn place(&self, site: &SiteName, shard: ShardId) -> Option<Place> {
        self.head.genesis.map(|genesis| Place { site: site.clone(), shard, genesis })
    }

    /// Whether a later statement about one of these operators was seen.
    pub(super) fn is_outdated(&self, chain: &[Arc<SignedGrant>]) -> bool {
        chain.iter().any(|signed| self.stated.get(&signed.operator).is_some_and(|last| signed.serial < *last))
    }

    /// Believes no statement any more that is older than these.
    pub(super) fn note_stated(&mut self, chain: &[Arc<SignedGrant>], out: &mut Out) {
        for signed in chain.iter().filter(|signed| signed.serial > FIRST_SERIAL) {
            let (operator, serial) = (signed.operator, signed.serial);
            let known = self.stated.get(&operator).copied();
            // A shard has no more operators than that.
            let has_room = known.is_some() || self.stated.len() < limits::OPERATORS_MAX;
            if has_room && known.is_none_or(|last| last < serial) {
                self.stated.insert(operator, serial);
                out.writes.push(JournalWrite::Stated { operator, serial });
            }
        }
    }

    /// Takes note of what operators were granted, or lost, since an entry that whoever asked named.
    pub(in crate::inbox) fn learn(
        &mut self,
        news: &AuthorityNews,
        asked: u64,
        (site, shard): (&SiteName, ShardId),
        out: &mut Out,
    ) {
        if let (Some(place), Some(first)) = (self.place(site, shard), self.head.first) {
            for chain in news.chains.iter().filter(|chain| chain.iter().any(|signed| signed.serial > FIRST_SERIAL)) {
                if !self.is_outdated(chain) && stated(chain, first.operator, &place).is_some() {
                    self.note_stated(chain, out);
                }
            }
        }
        // What was told is what came after that.
        if self.authority >= asked {
            self.authority = self.authority.max(news.up_to);
        }
    }
}
