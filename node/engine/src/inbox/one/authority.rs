//! What operators were granted: the node believes no statement about an operator that is older than one it has seen.
//!
//! A leader that lies may withhold that an operator was revoked. Once a robot's node has heard of a revocation, no
//! leader can make it take an earlier statement for a valid one. A liar can say that far more statements exist, so that
//! the node believes that it has heard all of them. The node believes that until the next leader says that there are
//! fewer, and tells all of them.
//!
//! The node forgets the number of a statement when the shard goes on as another one, and never before: the end of the
//! last statement about an operator says nothing of the ones before it, which a lying leader could tell instead, and
//! which this node may never have seen. So the places can be used up, by many operators in many years, or by an admin
//! who signs for keys that the shard never heard of. Some places are left for what the first operator itself states: an
//! operator below an admin that the first operator revokes may do nothing, whether the node remembers its number or
//! not. The node passes over a statement that has no place, since no place becomes free, and its status says so.
//!
//! The inboxes of a shard that take the word of the same first operator share their places: see [`Serials`].

use std::sync::Arc;

use skep_protocol::ids::ShardId;
use skep_protocol::journal::{JournalWrite, Serials};
use skep_protocol::limits;
use skep_protocol::operator::{AuthorityNews, FIRST_SERIAL, SignedGrant, stated};
use skep_protocol::signing::Place;
use skep_protocol::text::SiteName;

use super::{Inbox, Out};

/// For how many operators the node remembers the number of the last statement: as many as a shard remembers at a time.
const STATED_MAX: usize = limits::OPERATORS_MAX + limits::REVOKED_OPERATORS_MAX;
/// For how many of them another operator than the first one may state something.
const STATED_BY_OTHERS_MAX: usize = STATED_MAX - limits::OPERATOR_PLACES_OF_FIRST;

impl Inbox {
    /// Where statements for this inbox's agent hold; none before a leader told the node.
    pub(super) fn place(&self, site: &SiteName, shard: ShardId) -> Option<Place> {
        self.head.genesis.map(|genesis| Place { site: site.clone(), shard, genesis })
    }

    /// Whether the node saw a later statement about one of these operators.
    pub(super) fn is_outdated(&self, chain: &[Arc<SignedGrant>], known: &Serials) -> bool {
        let is_outdated = |signed: &Arc<SignedGrant>| {
            known.last(&self.head, &signed.operator).is_some_and(|last| signed.serial < last)
        };
        chain.iter().any(is_outdated)
    }

    /// From now on the node believes no statement that is older than these.
    pub(super) fn note_stated(&mut self, chain: &[Arc<SignedGrant>], out: &mut Out) {
        for signed in chain.iter().filter(|signed| signed.serial > FIRST_SERIAL) {
            let (operator, serial) = (signed.operator, signed.serial);
            let known = out.stated.last(&self.head, &operator);
            let by_first = self.head.first.is_some_and(|first| first.operator == signed.by);
            let max = if by_first { STATED_MAX } else { STATED_BY_OTHERS_MAX };
            if known.is_none() && out.stated.count(&self.head) >= max {
                self.lacks_stated = true;
            } else if known.is_none_or(|last| last < serial) {
                out.stated.raise(&self.head, operator, serial);
                out.writes.push(JournalWrite::Stated { operator, serial });
            }
        }
    }

    /// Records what operators were granted, or lost.
    pub(in crate::inbox) fn learn(&mut self, news: &AuthorityNews, (site, shard): (&SiteName, ShardId), out: &mut Out) {
        if let (Some(place), Some(first)) = (self.place(site, shard), self.head.first) {
            for chain in news.chains.iter().filter(|chain| chain.iter().any(|signed| signed.serial > FIRST_SERIAL)) {
                if !self.is_outdated(chain, &out.stated) && stated(chain, first.operator, &place).is_some() {
                    self.note_stated(chain, out);
                }
            }
        }
    }

    /// A leader told the statements that come after the first `asked`, up to the number `up_to`. `heard` says whether
    /// this inbox was among those that heard them. If there are fewer than `asked`, the leader has told all that there
    /// are.
    pub(in crate::inbox) fn note_told(&mut self, asked: u64, up_to: u64, heard: bool) {
        let from = if asked > up_to { 0 } else { asked };
        self.authority = match self.authority {
            known if heard && (from == 0 || (from..=up_to).contains(&known)) => up_to,
            // The node cannot know how many of the statements a leader ever told it.
            known if known > up_to => 0,
            known => known,
        };
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{Genesis, JournalId};
    use skep_protocol::journal::{JournalHead, JournalState};
    use skep_protocol::operator::{KnownFirst, OperatorGrant, Root};
    use skep_protocol::signing::{OperatorKey, OperatorSecret};

    use super::*;

    /// Up to which statement an inbox knows after this news, if it knew `known` statements before.
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
        // What a leader told after a lie it tells again to the inboxes that hear it: none of them can know what was
        // told before.
        assert_eq!([true, false].map(|heard| known_after(far, to_nine, heard)), [0; 2]);
        assert_eq!([4, 9, far].map(|known| known_after(known, (far, 9), true)), [9; 3], "all was told");
        assert_eq!([4, 9, far].map(|known| known_after(known, (far, 9), false)), [4, 9, 0]);
    }

    fn place() -> Place {
        Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) }
    }

    fn secret(n: u8) -> OperatorSecret {
        OperatorSecret::from_seed(&[n; 32])
    }

    /// A statement about an operator by another one.
    fn of(operator: u8, (serial, revoked): (u64, bool), by: u8) -> Arc<SignedGrant> {
        let whole = OperatorGrant::of_first(place(), secret(operator).key(), "somebody".parse().unwrap());
        Arc::new(OperatorGrant { serial, revoked, admin_depth: 1, ..whole }.sign(&secret(by)).unwrap())
    }

    /// An inbox of a shard whose first operator is 1.
    fn inbox(id: u8) -> Inbox {
        let first = Some(KnownFirst { operator: secret(1).key(), replaced: 0 });
        let head = JournalHead::new(JournalId::from_bytes([id; 16]));
        let head = JournalHead { genesis: Some(place().genesis), first, ..head };
        Inbox::new(JournalState::new(head, Vec::new()))
    }

    /// The same inbox, with statements about so many operators, and what it knows of them.
    fn inbox_with(stated: usize) -> (Inbox, Serials) {
        let (inbox, mut known) = (inbox(9), Serials::default());
        for n in 0..stated {
            let mut bytes = [0xff; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            known.raise(&inbox.head, OperatorKey::from_bytes(bytes), 2);
        }
        (inbox, known)
    }

    /// How many statements an inbox writes down when it hears of this chain.
    fn learned((inbox, known): (&mut Inbox, &mut Serials), chain: &[Arc<SignedGrant>]) -> usize {
        let mut out = Out { stated: std::mem::take(known), ..Out::default() };
        let news = AuthorityNews { chains: vec![Arc::new(chain.to_vec())], up_to: 1 };
        inbox.learn(&news, (&place().site, place().shard), &mut out);
        *known = out.stated;
        out.writes.len()
    }

    #[test]
    fn an_admin_that_uses_up_the_places_is_revoked_all_the_same_with_whoever_it_signed_for() {
        let (mut inbox, mut known) = inbox_with(STATED_BY_OTHERS_MAX - 1);
        let admin = of(2, (1, false), 1);
        assert_eq!(learned((&mut inbox, &mut known), &[of(3, (2, false), 2), Arc::clone(&admin)]), 1);
        assert!(!inbox.lacks_stated);
        assert_eq!(learned((&mut inbox, &mut known), &[of(4, (2, true), 2), Arc::clone(&admin)]), 0);
        assert!(inbox.lacks_stated, "it is said that there is no place");
        // A known operator keeps its place, whichever operator states something about it.
        assert_eq!(learned((&mut inbox, &mut known), &[of(3, (3, false), 2), Arc::clone(&admin)]), 1);
        assert_eq!(learned((&mut inbox, &mut known), &[of(2, (2, true), 1)]), 1);
        assert!(inbox.is_outdated(&[of(4, (1, false), 2), admin], &known));
    }

    #[test]
    fn what_there_is_no_place_for_is_not_written_down_and_it_is_said_so() {
        let (mut inbox, mut known) = inbox_with(STATED_MAX - 1);
        assert_eq!(learned((&mut inbox, &mut known), &[of(2, (2, true), 1)]), 1);
        assert!(!inbox.lacks_stated);
        assert_eq!(learned((&mut inbox, &mut known), &[of(3, (2, true), 1)]), 0);
        assert!(inbox.lacks_stated);
        assert_eq!(known.count(&inbox.head), STATED_MAX);
    }

    #[test]
    fn what_one_inbox_of_a_shard_saw_is_written_once_and_counts_for_all_that_take_the_same_word() {
        let (mut one, mut other, mut known) = (inbox(1), inbox(2), Serials::default());
        let heard = [of(2, (2, true), 1)];
        assert_eq!(learned((&mut one, &mut known), &heard), 1);
        assert_eq!(learned((&mut other, &mut known), &heard), 0);
        let before = [of(2, (1, false), 1)];
        assert!(one.is_outdated(&before, &known) && other.is_outdated(&before, &known));
        // An inbox that heard of another first operator learns nothing from this one, and tells it nothing.
        let first = Some(KnownFirst { operator: secret(7).key(), replaced: 0 });
        let mut misled = inbox(3);
        misled.head.first = first;
        assert!(!misled.is_outdated(&before, &known));
        assert_eq!(learned((&mut misled, &mut known), &[of(3, (9, true), 7)]), 1);
        assert!(!one.is_outdated(&[of(3, (1, false), 1)], &known));
        // A new inbox knows the statements as soon as it hears of the same first operator.
        let mut fresh = Inbox::new(JournalState::new(JournalHead::new(JournalId::from_bytes([4; 16])), Vec::new()));
        assert!(!fresh.is_outdated(&before, &known));
        let (genesis, first) = (place().genesis, Some(secret(1).key()));
        let root = Root { genesis, first, replaced: Vec::new(), past: Vec::new() };
        let mut out = Out { stated: known, ..Out::default() };
        fresh.pin(&root, (&place().site, place().shard), &mut out);
        assert!(fresh.is_outdated(&before, &out.stated));
    }
}
