//! Operators in a snapshot: the parts that exist once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_protocol::ids::RaftId;
use skep_protocol::operator::{KnownFirst, PastGenesis, SignedReplacement};
use skep_protocol::signing::{OperatorKey, Place};

use super::{Operator, Operators};

/// All but the operators themselves.
#[derive(Serialize, Deserialize)]
pub(crate) struct OperatorsHead {
    place: Option<Place>,
    made_first: Option<OperatorKey>,
    first: Option<KnownFirst>,
    replaced: Vec<Arc<SignedReplacement>>,
    past: Vec<PastGenesis>,
    former: Vec<RaftId>,
    restated: u64,
    restated_at: Option<u64>,
    serial_floor: u64,
}

impl Operators {
    pub(crate) fn head(&self) -> OperatorsHead {
        OperatorsHead {
            place: self.place.clone(),
            made_first: self.made_first,
            first: self.first,
            replaced: self.replaced.clone(),
            past: self.past.clone(),
            former: self.former.clone(),
            restated: self.restated,
            restated_at: self.restated_at,
            serial_floor: self.serial_floor,
        }
    }

    /// All operators, each with its key.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = (&OperatorKey, &Operator)> {
        self.operators.iter()
    }

    /// A table without operators.
    pub(crate) fn from_head(head: OperatorsHead) -> Self {
        let OperatorsHead { place, made_first, first, replaced, past, former, restated, restated_at, serial_floor } =
            head;
        let known = Self { place, made_first, first, replaced, past, former, ..Self::default() };
        Self { restated, restated_at, serial_floor, ..known }
    }

    /// Takes over an operator. Once all of them are there, [`stand_all_anew`](Self::stand_all_anew) works out where
    /// they stand.
    pub(crate) fn restore(&mut self, key: OperatorKey, operator: Operator) {
        self.operators.insert(key, operator);
    }
}
