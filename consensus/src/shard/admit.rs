//! Judges what voters send before it reaches openraft, which would write it down: whatever its sender claims, it must
//! be possible.
//!
//! A vote holds for ever: a vote of the highest term leaves a group without a leader for good. An entry stays in the
//! log as long as the log: an entry that no build can read stops each replica that applies it, and again after each
//! start. A stamp moves the clock, and every deadline with it. So a node takes no vote, entry or stamp that cannot have
//! come about.

use std::sync::atomic::Ordering;

use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::AppendEntriesRequest;
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{self, EntryBody};
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::time::LogInstant;

use super::Shard;
use super::continuity::ClockSaid;
use crate::net::Who;
use crate::raft::types::{TypeConfig, Vote};

/// Whether a term can have come about, for a node that has last seen the term `seen`. A node that has seen none, such
/// as after the loss of its disk, cannot know how many there were.
pub(crate) fn is_possible_term(seen: u64, term: u64) -> bool {
    let last = if seen == 0 { limits::TERM_MAX } else { seen.saturating_add(limits::TERMS_AHEAD_MAX) };
    is_on(Mutant::TermUnbounded) || term <= last.min(limits::TERM_MAX)
}

/// Checks that a vote in a frame is its sender's own: an admitted peer speaks for itself only.
fn check_sender(who: Who, vote: &Vote) -> Result<(), String> {
    if vote.leader_id.voted_for == who.raft_id {
        return Ok(());
    }
    Err(format!("the frame speaks for {}, and its sender is {}", vote.leader_id.voted_for, who.raft_id))
}

impl Shard {
    /// Whether a node votes, by the last membership in this node's log.
    pub(crate) fn is_voter(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics();
        let watched = metrics.borrow_watched();
        let membership = watched.membership_config.membership();
        membership.voter_ids().any(|id| membership.get_node(&id).is_some_and(|member| member.node == node))
    }

    /// Whether a node is a member, voter or learner.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics();
        let watched = metrics.borrow_watched();
        watched.membership_config.membership().nodes().any(|(_, member)| member.node == node)
    }

    /// Whether a node votes by the last committed membership, even if a later one in this node's log leaves it out.
    pub(crate) fn was_voter(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics();
        let watched = metrics.borrow_watched();
        let membership = watched.committed_membership_config.membership();
        membership.voter_ids().any(|id| membership.get_node(&id).is_some_and(|member| member.node == node))
    }

    /// Checks that a vote is its sender's own, and of a term that can have come about.
    pub(super) fn check_vote(&self, who: Who, vote: &Vote) -> Result<(), String> {
        check_sender(who, vote)?;
        let (seen, term) = (self.raft().metrics().borrow_watched().current_term, vote.leader_id.term);
        if is_possible_term(seen, term) {
            return Ok(());
        }
        if let Some(more) = self.inner.noise.terms.happened() {
            let advice = "if the others are right, this node was away for too long to know: move its data directory away, start \
                          it, and run 'skep shard add-voter' with its id on the leader";
            tracing::error!(
                shard = %self.id(), node = %who.node, seen, term, more, advice,
                "a voter speaks of a term that cannot have come about"
            );
        }
        Err(format!("term {term} cannot have come about after {seen}"))
    }

    /// Checks that a vote is a candidate's own. openraft takes over the vote in a request as it is: a vote that claims
    /// to be a leader's would make the candidate a leader.
    pub(super) fn check_candidate(&self, who: Who, vote: &Vote) -> Result<(), String> {
        if vote.committed {
            return Err("a request for votes says that its sender was elected already".to_owned());
        }
        self.check_vote(who, vote)
    }

    /// Checks that the entries of a leader are possible: this build reads them, and they are of the leader's terms and
    /// within its clock.
    pub(super) fn check_entries(&self, who: Who, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), String> {
        let term = request.vote.leader_id.term;
        for one in &request.entries {
            let index = one.log_id.index;
            if *one.log_id.leader_id > term {
                return Err(format!("entry {index} is of a later term than its sender leads"));
            }
            let EntryPayload::Normal(bytes) = &one.payload else { continue };
            match entry::Entry::decode(&bytes.0) {
                Ok(entry) => {
                    self.check_stamp(who.node, entry.stamp)?;
                    self.check_founding(&entry.body).map_err(|why| format!("entry {index} {why}"))?;
                }
                Err(error) => return Err(self.unreadable(who, index, &error)),
            }
        }
        if request.leader_commit.is_some_and(|id| *id.leader_id > term) {
            return Err("what is committed is of a later term than its sender leads".to_owned());
        }
        Ok(())
    }

    /// Checks that a first entry is this shard's: with the entry of another shard the replica would pass for that
    /// shard.
    fn check_founding(&self, body: &EntryBody) -> Result<(), String> {
        let EntryBody::Founding(founding) = body else { return Ok(()) };
        let place = &founding.charter.place;
        if self.is_here(place) {
            return Ok(());
        }
        Err(format!("is the first one of shard {} of site {}", place.shard, place.site))
    }

    fn unreadable(&self, who: Who, index: u64, error: &skep_protocol::codec::CodecError) -> String {
        if let Some(more) = self.inner.noise.entries.happened() {
            let advice = "if the leader runs a newer Skep, install it here too";
            tracing::error!(
                shard = %self.id(), node = %who.node, index, %error, more, advice,
                "the leader sends an entry that this Skep does not understand: it is not taken"
            );
        }
        format!("entry {index} is not understood ({error}) by the Skep of this node")
    }

    /// Checks that the shard's clock can show this stamp by now.
    pub(super) fn check_stamp(&self, from: NodeId, stamp: LogInstant) -> Result<(), String> {
        if self.inner.clock.is_possible(stamp) {
            return Ok(());
        }
        self.doubt_clock(from, stamp);
        Err(format!("the shard's clock cannot show {stamp} yet, as far as this node knows"))
    }

    /// Deals with a leader's clock that is ahead of what this node can explain. The machine of this node may have stood
    /// still, so this node asks the other voters. If one supports the leader, or none contradicts it for long, this
    /// node drops its estimate and learns the clock anew.
    pub(super) fn doubt_clock(&self, leader: NodeId, claimed: LogInstant) {
        let Some(asked_at) = self.inner.clock.ask() else { return };
        let shard = self.clone();
        tokio::spawn(async move {
            let is_taken = shard.is_borne_out(leader, claimed).await || shard.is_contradicted_for_long();
            shard.inner.clock.answered(None, asked_at);
            if is_taken {
                let what = "this node's estimate of the log clock was behind: it is learned anew";
                tracing::warn!(shard = %shard.id(), %claimed, "{what}");
                shard.inner.contradicted_ms.store(0, Ordering::Relaxed);
                shard.inner.clock.forget();
                shard.learn_clock(leader);
            } else if let Some(more) = shard.inner.noise.clocks.happened() {
                tracing::error!(
                    shard = %shard.id(), node = %leader, %claimed, more,
                    "a leader's clock is ahead of what can be, and another voter contradicts it"
                );
            }
        });
    }

    /// Whether voters have contradicted leaders for so long that this node does not wait any longer. A leader that lies
    /// gains only that deadlines end early.
    fn is_contradicted_for_long(&self) -> bool {
        let now = self.inner.clock.boot_ms().max(1);
        match self.inner.contradicted_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => false,
            Err(since) => now.saturating_sub(since) >= limits::CLOCK_CONTRADICTED_MS_MAX,
        }
    }

    /// Whether another voter's clock has come as far, or no voter says that it has not.
    async fn is_borne_out(&self, leader: NodeId, claimed: LogInstant) -> bool {
        let local = self.inner.parts.node;
        let voters: Vec<NodeId> = self.voters().into_values().map(|member| member.node).collect();
        let mut contradicted = false;
        for voter in voters.into_iter().filter(|node| *node != leader && *node != local) {
            match self.inner.parts.ask_clock(voter, self.id()).await {
                ClockSaid::Clock(clock) if claimed.since_ms(clock) <= limits::CLOCK_LEAD_MS_MAX => return true,
                ClockSaid::Clock(_) => contradicted = true,
                ClockSaid::None | ClockSaid::Nothing => {}
            }
        }
        !contradicted
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, node};
    use super::*;

    #[test]
    fn a_term_after_which_there_is_none_is_not_taken_and_one_of_a_month_is() {
        let month = 30 * 24 * 60 * 60;
        for seen in [1, 7, 1 << 30] {
            // This is one election every four seconds.
            assert!(is_possible_term(seen, seen + month / 4), "{seen}");
            assert!(is_possible_term(seen, 1), "an earlier one is for openraft to refuse");
            assert!(!is_possible_term(seen, seen + limits::TERMS_AHEAD_MAX + 1), "{seen}");
            assert!(!is_possible_term(seen, u64::MAX), "{seen}");
        }
        assert!(is_possible_term(0, 1 << 30), "a node that has seen none may come to any shard");
        assert!(!is_possible_term(0, u64::MAX) && !is_possible_term(limits::TERM_MAX, limits::TERM_MAX + 1));
    }

    #[test]
    fn a_peer_speaks_for_itself_only() {
        let who = Who { node: node(1), raft_id: id(1) };
        let vote = |of| Vote {
            leader_id: openraft::impls::leader_id_std::LeaderId { term: 3, voted_for: id(of) },
            committed: true,
        };
        assert_eq!(check_sender(who, &vote(1)), Ok(()));
        assert!(check_sender(who, &vote(2)).is_err());
    }
}
