//! What operators were granted: no statement about one of them is believed that is older than one that was seen.
//!
//! A leader that lies may withhold that an operator was revoked. Once a robot's node has heard of it, nobody can have it take
//! what was stated before for what holds. That there is nothing more to be heard until far more was stated is believed until the
//! next leader says that there is not so much, and tells all that there is.

use std::sync::Arc;

use skep_protocol::authority::{AuthorityNews, FIRST_SERIAL, SignedGrant, stated};
use skep_protocol::ids::ShardId;
use skep_protocol::journal::JournalWrite;
use skep_protocol::limits;
use skep_protocol::statement::Place;
use skep_protocol::text::SiteName;

use super::{Inbox, Out};

/// Operators of whom the number of the last statement is remembered.
const STATED_MAX: usize = limits::OPERATORS_MAX + limits::REVOKED_OPERATORS_MAX;

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
            // A shard has no more operators at a time than that.
            let has_room = known.is_some() || self.stated.len() < STATED_MAX;
            if has_room && known.is_none_or(|last| last < serial) {
                self.stated.insert(operator, serial);
                out.writes.push(JournalWrite::Stated { operator, serial });
            }
        }
    }

    /// Takes note of what operators were granted, or lost.
    pub(in crate::inbox) fn learn(&mut self, news: &AuthorityNews, (site, shard): (&SiteName, ShardId), out: &mut Out) {
        if let (Some(place), Some(first)) = (self.place(site, shard), self.head.first) {
            for chain in news.chains.iter().filter(|chain| chain.iter().any(|signed| signed.serial > FIRST_SERIAL)) {
                if !self.is_outdated(chain) && stated(chain, first.operator, &place).is_some() {
                    self.note_stated(chain, out);
                }
            }
        }
    }

    /// A leader has told what was stated after so many statements, up to another number, and this inbox was among those that heard it,
    /// or not. If there are not so many as was asked, it has told all that there are.
    pub(in crate::inbox) fn note_told(&mut self, asked: u64, up_to: u64, heard: bool) {
        let from = if asked > up_to { 0 } else { asked };
        self.authority = match self.authority {
            known if heard && (from == 0 || (from..=up_to).contains(&known)) => up_to,
            // Nobody knows how much of it was ever told.
            known if known > up_to => 0,
            known => known,
        };
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::JournalId;
    use skep_protocol::journal::{JournalHead, JournalState};

    use super::*;

    /// Up to where an inbox knows, that knew so far, once something was told.
    fn known_after(known: u64, (asked, up_to): (u64, u64), heard: bool) -> u64 {
        let head = JournalHead::new(JournalId::from_bytes([9; 16]));
        let mut inbox = Inbox::new(JournalState::new(head, Vec::new()));
        inbox.authority = known;
        inbox.note_told(asked, up_to, heard);
        inbox.authority
    }

    #[test]
    fn an_inbox_knows_what_it_was_told_without_a_gap_and_nothing_beyond_what_there_is() {
        let (far, to_nine) = (u64::MAX, (5, 9));
        assert_eq!([5, 7, 9].map(|known| known_after(known, to_nine, true)), [9; 3]);
        assert_eq!(known_after(4, to_nine, true), 4, "it lacks what came before");
        assert_eq!(known_after(7, to_nine, false), 7, "it heard nothing");
        // What was told after a lie is told to those that hear it, and nobody knows what was told before.
        assert_eq!([true, false].map(|heard| known_after(far, to_nine, heard)), [0; 2]);
        assert_eq!([4, 9, far].map(|known| known_after(known, (far, 9), true)), [9; 3], "all was told");
        assert_eq!([4, 9, far].map(|known| known_after(known, (far, 9), false)), [4, 9, 0]);
    }
}
