//! What callers ask the directory of a site, and what it keeps from other shards.

use std::sync::Arc;

use skep_protocol::entry::{Charter, Op};
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use skep_protocol::site::{SiteAnswer, SiteKey, SiteOp, SiteQuery, SiteRefusal};
use skep_protocol::time::LogInstant;
use skep_trust::{SiteTime, SiteView};

use super::FleetState;
use super::changes::Changes;
use crate::tables::site::Site;

impl FleetState {
    /// Whether the shard is the directory of its site.
    pub fn is_directory(&self) -> bool {
        self.place().is_some_and(|place| place.shard == ShardId::DIRECTORY)
    }

    /// Makes the site as the charter says.
    pub(super) fn found_site(&mut self, charter: &Charter, changes: &mut Changes) {
        if self.is_directory() {
            self.site = Site::found(charter, &mut self.head.cx(changes));
        }
    }

    /// Counts site time after the shard's clock went on to where it is, or was lost.
    pub(super) fn note_site_time(&mut self, before: LogInstant, is_lost: bool, changes: &mut Changes) {
        let Some(site) = &mut self.site else { return };
        site.note_clock(before, self.head.clock);
        if is_lost {
            site.note_lost_clock(&mut self.head.cx(changes));
        }
    }

    /// Whether this shard does such operations: the directory has no work, and other shards have no members.
    pub(super) fn check_is_for(&self, op: &Op) -> Result<(), Refusal> {
        match op {
            Op::Task(_) | Op::Agent(_) | Op::Command(_) if self.is_directory() => {
                Err(SiteRefusal::DirectoryOnly.into())
            }
            Op::Site(_) if self.site.is_none() => Err(SiteRefusal::NotDirectory.into()),
            Op::Task(_) | Op::Agent(_) | Op::Command(_) | Op::Operator(_) | Op::Site(_) => Ok(()),
        }
    }

    pub(super) fn apply_to_site(&mut self, op: &SiteOp, changes: &mut Changes) -> Result<Receipt, Refusal> {
        let site = self.site.as_mut().ok_or(SiteRefusal::NotDirectory)?;
        site.apply(op, &mut self.head.cx(changes)).map(Receipt::Site)
    }

    pub(super) fn note_site_refusal(&mut self, op: &SiteOp, refusal: &Refusal, changes: &mut Changes) {
        if let Some(site) = &mut self.site {
            site.note_refusal(op, refusal, &mut self.head.cx(changes));
        }
    }

    pub(super) fn leave_office(&mut self, voter: SiteKey, changes: &mut Changes) {
        if let Some(site) = &mut self.site {
            site.leave_office(voter, &mut self.head.cx(changes));
        }
    }

    /// What the directory knows, at an instant of the shard's clock, in about so many bytes.
    pub fn site_answer(&self, query: &SiteQuery, clock: LogInstant, bytes_max: u64) -> SiteAnswer {
        match &self.site {
            Some(site) => site.answer(query, self.site_time_of(site, clock), bytes_max),
            None => SiteAnswer::NoSite,
        }
    }

    /// Site time at an instant of the shard's clock; none if this is not the directory.
    pub fn site_time(&self, clock: LogInstant) -> Option<SiteTime> {
        self.site.as_ref().map(|site| self.site_time_of(site, clock))
    }

    fn site_time_of(&self, site: &Site, clock: LogInstant) -> SiteTime {
        site.time().plus_ms(clock.checked_since_ms(self.head.clock).unwrap_or(0))
    }

    /// What the directory believes of the site: the root and the revocations; none if this is not the directory.
    pub fn site_view(&self) -> Option<&Arc<SiteView>> {
        self.site.as_ref().map(Site::view)
    }

    /// Keys of the voters that must leave their office before they can be revoked.
    pub fn to_leave_office(&self) -> impl Iterator<Item = SiteKey> + '_ {
        self.site.iter().flat_map(Site::to_leave_office)
    }
}
