//! The directory of a site, which is shard 0: the API passes statements to it as they were sealed.

use futures::StreamExt as _;
use skep_proto::{convert, v1};
use skep_protocol::history::HistoryRecord;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::{NotDone, Receipt};
use skep_protocol::query::{Answer, AsOf, Query};
use skep_protocol::site::{SiteAnswer, SiteQuery, SiteRefusal};

use super::queries::mismatched;
use super::{Caller, Host, Messages};
use crate::calls::Call;
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Directory {
    host: Host,
}

impl Directory {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    /// What the directory answers; refused if the shard is the directory of no site.
    async fn ask(&self, caller: &Caller, stale: bool, query: SiteQuery) -> Result<(AsOf, SiteAnswer), Failed> {
        let (as_of, answer) = self.host.read_of(ShardId::DIRECTORY, caller, stale, Query::Site(query)).await?;
        match answer {
            Answer::Site(SiteAnswer::NoSite) => {
                Err(Failed::not_done(&NotDone::Refused(SiteRefusal::NotDirectory.into())))
            }
            Answer::Site(answer) => Ok((as_of, answer)),
            _ => Err(mismatched()),
        }
    }

    pub(crate) async fn propose(&self, caller: Caller, request: v1::ProposeRequest) -> Result<v1::SiteReceipt, Failed> {
        let done = self.host.submit(convert::propose(request)?, caller.patience_ms).await?;
        let Receipt::Site(receipt) = &done.receipt else {
            return Err(Failed::bug("a statement about the site without a receipt"));
        };
        Ok(convert::site_receipt_to_proto(done.id.as_bytes().to_vec(), receipt, done.index))
    }

    pub(crate) async fn admit(&self, request: v1::AdmitRequest) -> Result<v1::AdmitReply, Failed> {
        let request = convert::admit(request)?;
        match self.host.calls.ask(|answer| Call::Admit { request, answer }).await {
            Ok(Ok(reply)) => Ok(v1::AdmitReply { reply }),
            Ok(Err(why)) => Err(Failed::not_admitted(&why)),
            Err(_) => Err(Failed::stopping()),
        }
    }

    pub(crate) async fn summary(
        &self,
        caller: Caller,
        request: v1::SiteSummaryRequest,
    ) -> Result<v1::SiteSummaryReply, Failed> {
        let (as_of, answer) = self.ask(&caller, request.stale, SiteQuery::Summary).await?;
        let SiteAnswer::Summary(summary) = answer else { return Err(mismatched()) };
        Ok(convert::site_summary_to_proto(&as_of, *summary))
    }

    pub(crate) async fn members(
        &self,
        caller: Caller,
        request: v1::ListMembersRequest,
    ) -> Result<v1::ListMembersReply, Failed> {
        let after = convert::optional_site_key("after", &request.after)?;
        let query = SiteQuery::Members { after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.ask(&caller, request.stale, query).await?;
        let SiteAnswer::Members { members, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListMembersReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            members: members.into_iter().map(convert::site_member_to_proto).collect(),
            next: next.map(|key| key.to_string()).unwrap_or_default(),
        })
    }

    pub(crate) async fn invitations(
        &self,
        caller: Caller,
        request: v1::ListInvitationsRequest,
    ) -> Result<v1::ListInvitationsReply, Failed> {
        let after = convert::optional_site_key("after", &request.after)?;
        let query = SiteQuery::Invitations { after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.ask(&caller, request.stale, query).await?;
        let SiteAnswer::Invitations { invitations, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListInvitationsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            invitations: invitations.into_iter().map(convert::site_invitation_to_proto).collect(),
            next: next.map(|key| key.to_string()).unwrap_or_default(),
        })
    }

    pub(crate) async fn revocations(
        &self,
        caller: Caller,
        request: v1::ListRevocationsRequest,
    ) -> Result<v1::ListRevocationsReply, Failed> {
        let query = SiteQuery::Revocations { after: request.after, limit: convert::page_limit(request.limit)? };
        let (as_of, answer) = self.ask(&caller, request.stale, query).await?;
        let SiteAnswer::Revocations { revocations, next } = answer else { return Err(mismatched()) };
        Ok(v1::ListRevocationsReply {
            as_of: Some(convert::as_of_to_proto(&as_of)),
            revocations: revocations.into_iter().map(|(_, revocation)| revocation).collect(),
            next: next.unwrap_or(0),
        })
    }

    pub(crate) async fn roots(
        &self,
        caller: Caller,
        request: v1::ListRootsRequest,
    ) -> Result<v1::ListRootsReply, Failed> {
        let query = SiteQuery::Roots { after: request.after };
        let (as_of, answer) = self.ask(&caller, request.stale, query).await?;
        let SiteAnswer::Roots { documents, next } = answer else { return Err(mismatched()) };
        let as_of = Some(convert::as_of_to_proto(&as_of));
        Ok(v1::ListRootsReply { as_of, documents, next: next.unwrap_or(0) })
    }

    pub(crate) async fn clock(&self) -> Result<v1::ClockReply, Failed> {
        Ok(v1::ClockReply { clock: self.host.clock(ShardId::DIRECTORY).await?.raw() })
    }

    pub(crate) async fn watch(
        &self,
        caller: Caller,
        request: v1::WatchSiteRequest,
    ) -> Result<Messages<v1::SiteEvent>, Failed> {
        let place = self.host.lasting(&caller)?;
        let events_of = |record: &HistoryRecord| convert::site_event(record).into_iter().collect::<Vec<_>>();
        let events = self.host.follow(ShardId::DIRECTORY, request.from_index, events_of);
        Ok(place.around(events).boxed())
    }
}
