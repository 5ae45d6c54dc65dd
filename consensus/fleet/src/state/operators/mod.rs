//! What operators state of one another, and what clients ask of them.

#[cfg(test)]
mod tests;

use skep_protocol::entry::Recovered;
use skep_protocol::ids::RaftId;
use skep_protocol::operator::{AuthorityNews, KnownFirst, OperatorGrant, OperatorOp, Root};
use skep_protocol::outcome::Receipt;
use skep_protocol::recovery::{Lineage, SignedRecovery};
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::{OperatorKey, Place};

use super::FleetState;
use super::changes::Changes;

impl FleetState {
    /// Applies what an operator states of operators, and calls off the commands for which an operator lost the right by
    /// it.
    pub(super) fn apply_to_operators(&mut self, op: &OperatorOp, changes: &mut Changes) -> Result<Receipt, Refusal> {
        let may_take_rights = match op {
            OperatorOp::ReplaceFirst { .. } => true,
            // A new operator has sent nothing, and no operator depends on its word.
            OperatorOp::Grant { grant } => self.operators.is_known(&grant.operator),
        };
        let receipt = self.operators.apply(op, &mut self.head.cx(changes))?;
        if may_take_rights {
            self.commands.withdraw(&self.operators, &self.agents, &mut self.head.cx(changes));
        }
        Ok(receipt)
    }

    /// The shard goes on as another group.
    pub(super) fn recover(&mut self, recovered: &Recovered, changes: &mut Changes) {
        self.operators.recover(recovered, &mut self.head.cx(changes));
        self.commands.withdraw(&self.operators, &self.agents, &mut self.head.cx(changes));
    }

    /// Whether an entry makes the shard go on as another group.
    pub(super) fn is_recovery(&self, recovered: &Recovered) -> bool {
        self.operators.is_recovery(recovered, self.head.applied.map(|position| position.index))
    }

    /// Whether an entry after this one has a statement about an operator that replaced an earlier one. None comes
    /// before all entries.
    pub fn authority_changed_after(&self, index: Option<u64>) -> bool {
        self.operators.changed_after(index)
    }

    /// Number of statements about operators that have replaced an earlier one.
    pub fn restated(&self) -> u64 {
        self.operators.restated()
    }

    /// The statements about operators that replaced an earlier one, after so many of them, in order: as many as one
    /// answer of so many bytes holds, and one at least. All of them, if there are not so many: then what the caller was
    /// told is not known. Of the first operators, which no operator granted anything, there is none: see
    /// [`root`](Self::root).
    pub fn authority_news(&self, after: u64, bytes_max: usize) -> AuthorityNews {
        self.operators.news(after, bytes_max, &self.head.limits)
    }

    /// Operators in order of their keys.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorGrant> {
        self.operators.after(None)
    }

    /// Operators in order of their keys, from after one.
    pub fn operators_after(&self, after: Option<OperatorKey>) -> impl Iterator<Item = &OperatorGrant> {
        self.operators.after(after)
    }

    /// The site, shard and genesis where statements of operators hold; none before the shard's first entry.
    pub fn place(&self) -> Option<&Place> {
        self.operators.place()
    }

    /// The floor of serials: the first statement about an operator that is new here has a higher serial.
    pub fn serial_floor(&self) -> u64 {
        self.operators.serial_floor()
    }

    /// The shard's first operator.
    pub fn first_operator(&self) -> Option<KnownFirst> {
        self.operators.first()
    }

    /// Where all authority comes from, for a caller that knows so many replacements of the first operator.
    pub fn root(&self, replaced: u64) -> Option<Root> {
        self.operators.root(replaced)
    }

    /// The statement by which the shard goes on as another group than it was; none if it never did.
    pub fn recovery(&self) -> Option<&SignedRecovery> {
        self.operators.recovery()
    }

    /// The lineage of the shard; none before its first entry.
    pub fn lineage(&self) -> Option<Lineage> {
        self.operators.lineage()
    }

    /// Whether a member was one of an earlier group: what goes on may lack entries that it holds.
    pub fn is_former(&self, member: RaftId) -> bool {
        self.operators.is_former(member)
    }
}
