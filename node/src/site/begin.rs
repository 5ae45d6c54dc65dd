//! The first start of a site's first node: it makes the directory and the first work shard, and is their first member.
//!
//! What is to be made was stated once, by 'skep site init'. Each step is durable before the next one, and is left out
//! if it was taken before: a start that is cut off anywhere goes on at the next one. The file is taken away last. A
//! node whose data was lost makes nothing: what it made before may be with others.

use std::time::Duration;

use skep_consensus::{ConsensusHandle, MembershipError};
use skep_protocol::attempt::AttemptTarget;
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{Genesis, RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::site::{SiteAnswer, SiteKey, SiteOp, SiteQuery};
use skep_trust::{Chain, Sponsor};

use super::directory::read;
use super::first::FirstShards;
use super::held::Keeper;

/// How soon a step is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Why the site does not begin here.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    /// A shard cannot be made.
    #[error("shard {shard}: {why}")]
    Shard {
        /// Which.
        shard: ShardId,
        /// Why not.
        why: MembershipError,
    },
    /// The directory does not take its first member.
    #[error("the directory of the site does not take its first member: {0}")]
    Refused(String),
    /// The node's chain does not say who invited it.
    #[error("the node's chain of certificates does not say who invited it")]
    NoSponsor,
}

/// Makes the first shards, and enters this node into the directory.
pub(super) async fn begin(first: FirstShards, chain: Chain, keeper: Keeper, consensus: ConsensusHandle) {
    if let Err(why) = make(&first, &chain, &consensus).await {
        tracing::error!(%why, "the site does not begin; it is tried again when the node starts again");
        return;
    }
    match tokio::task::spawn_blocking(move || keeper.forget_first()).await {
        Ok(Ok(())) => tracing::info!("the site has begun: its directory and its first shard are there"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the site has begun, and the node looks at that again at its next start")
        }
        Err(error) => tracing::debug!(%error, "the node stops"),
    }
}

async fn make(first: &FirstShards, chain: &Chain, consensus: &ConsensusHandle) -> Result<(), BeginError> {
    for (shard, genesis, operator) in first.all(Genesis::from_bytes(rand::random())) {
        match consensus.init_shard(shard, vec![consensus.node()], genesis, operator).await {
            Ok(()) => tracing::info!(%shard, "the first node made a shard of the site"),
            // An earlier start made it.
            Err(MembershipError::Exists) => {}
            Err(why) => return Err(BeginError::Shard { shard, why }),
        }
    }
    enter(chain, consensus).await
}

/// Enters this node into the directory: its invitation, that it redeemed that, and its certificate.
async fn enter(chain: &Chain, consensus: &ConsensusHandle) -> Result<(), BeginError> {
    let ops = entries(chain, SiteKey::from(consensus.node())).ok_or(BeginError::NoSponsor)?;
    loop {
        if is_entered(consensus).await {
            return Ok(());
        }
        // They travel together, and are in one entry: no lost clock comes between an invitation and its use.
        if let Some(clock) = consensus.clock(ShardId::DIRECTORY) {
            let request = |op: &SiteOp| Request {
                id: RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
                first_sent: clock,
                deadline: clock.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT),
                op: Op::Site(op.clone()),
            };
            let requests = ops.iter().map(request).collect();
            let mut outcomes = consensus.propose(ShardId::DIRECTORY, AttemptTarget::Local, requests).await;
            // An invitation that was used before is refused. The certificate that follows it is taken again.
            match outcomes.pop() {
                Some(ProposeOutcome::Applied { reply: Reply::Done(_), .. }) => return Ok(()),
                Some(ProposeOutcome::Applied { reply: Reply::Refused(why), .. } | ProposeOutcome::Refused(why)) => {
                    return Err(BeginError::Refused(why.to_string()));
                }
                // There is no leader yet, or no room.
                Some(_) | None => {}
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

fn entries(chain: &Chain, node: SiteKey) -> Option<[SiteOp; 3]> {
    let link = chain.links().first()?;
    let Sponsor { invitation, request } = link.sponsor.as_ref()?;
    Some([
        SiteOp::Invite { invitation: invitation.to_bytes() },
        SiteOp::Redeem { invitation: SiteKey::from(invitation.key), node, request: request.to_bytes() },
        SiteOp::Issue { certificate: link.certificate.to_bytes() },
    ])
}

/// Whether the directory has this node as a member.
async fn is_entered(consensus: &ConsensusHandle) -> bool {
    let own = SiteKey::from(consensus.node());
    matches!(read(consensus, SiteQuery::Member(own)).await, Some(SiteAnswer::Member(Some(_))))
}
