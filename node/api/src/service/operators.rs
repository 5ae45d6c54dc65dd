//! Operators, and the place for which they sign.

use futures::StreamExt as _;
use skep_proto::convert::Meta;
use skep_proto::{convert, v1};
use skep_protocol::field::InField as _;
use skep_protocol::operator::OperatorOp;
use skep_protocol::outcome::Receipt;
use skep_protocol::query::{Answer, Query};
use skep_protocol::signing::OperatorKey;

use super::queries::mismatched;
use super::{Caller, Host, Messages};
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Operators {
    host: Host,
}

impl Operators {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn change(&self, caller: &Caller, request: (Meta, OperatorOp)) -> Result<v1::OperatorReceipt, Failed> {
        let done = self.host.submit(request, caller.patience_ms).await?;
        let Receipt::Operator { operator, serial } = &done.receipt else {
            return Err(Failed::bug("a grant without a receipt"));
        };
        let (request_id, operator) = (done.id.as_bytes().to_vec(), operator.to_string());
        Ok(v1::OperatorReceipt { request_id, operator, serial: *serial, index: done.index })
    }

    pub(crate) async fn replace_first(
        &self,
        caller: Caller,
        request: v1::ReplaceFirstRequest,
    ) -> Result<v1::OperatorReceipt, Failed> {
        self.change(&caller, convert::replace_first(request)?).await
    }

    pub(crate) async fn grant(
        &self,
        caller: Caller,
        request: v1::GrantOperatorRequest,
    ) -> Result<v1::OperatorReceipt, Failed> {
        self.change(&caller, convert::grant_operator(request)?).await
    }

    pub(crate) async fn list(
        &self,
        caller: Caller,
        request: v1::ListOperatorsRequest,
    ) -> Result<v1::ListOperatorsReply, Failed> {
        let after = if request.after.is_empty() { None } else { Some(request.after.parse::<OperatorKey>()) };
        let after = after.transpose().in_field("after")?;
        let query = Query::Operators { after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.host.read(&caller, request.read, query).await?;
        let Answer::Operators { operators, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListOperatorsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            operators: operators.iter().map(convert::operator_to_proto).collect(),
            next: next.map(|key| key.to_string()).unwrap_or_default(),
        })
    }

    pub(crate) async fn watch(
        &self,
        caller: Caller,
        request: v1::WatchOperatorsRequest,
    ) -> Result<Messages<v1::OperatorEvent>, Failed> {
        let place = self.host.lasting(&caller)?;
        let events = self.host.follow(convert::shard_id(request.shard), request.from_index, |record| {
            convert::operator_event(record).into_iter().collect()
        });
        Ok(place.around(events).boxed())
    }

    pub(crate) async fn place(&self, caller: Caller, request: v1::PlaceRequest) -> Result<v1::PlaceReply, Failed> {
        let (as_of, answer) = self.host.read(&caller, request.read, Query::Place).await?;
        let Answer::Place { place, first, serial_floor } = answer else { return Err(mismatched()) };
        let place = place.ok_or_else(|| Failed::not_found("the shard has not begun".to_owned()))?;
        Ok(convert::place_to_proto(&as_of, &place, first, serial_floor))
    }
}
