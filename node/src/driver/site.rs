//! What is wrong with this node's place in its site.

use skep_admission::SiteHandle;
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_trust::SiteClock;

/// How long a node may run until it is told the site's time, in milliseconds.
const TIME_TOLD_AFTER_MS: u64 = 60_000;
/// A certificate of which less than one part in so many is left should have been renewed: that is due when a third is
/// left.
const LEFT_MIN: u64 = 4;

/// What is wrong, after the node has run for so long.
pub(super) fn faults_of_site(site: &SiteHandle, up_ms: u64) -> Vec<FaultReport> {
    let mut reports = Vec::new();
    let mut report = |fault, detail: String| reports.push(FaultReport { fault, node: None, detail });
    let (SiteClock::Known(now) | SiteClock::AtLeast(now)) = site.clock();
    match site.own() {
        Err(refusal) => report(ShardFault::CertificateRefused, refusal.to_string()),
        Ok(admitted) => {
            let validity = admitted.member.validity;
            let left_ms = validity.until.0.saturating_sub(now.0);
            if left_ms < validity.life_ms() / LEFT_MIN {
                let hours = left_ms / 3_600_000;
                let detail = format!("the node's certificate ends in {hours} h of site time, at {}", validity.until);
                report(ShardFault::CertificateEnds, detail);
            }
        }
    }
    if matches!(site.clock(), SiteClock::AtLeast(_)) && up_ms >= TIME_TOLD_AFTER_MS {
        report(ShardFault::SiteClockUnknown, format!("it is not earlier than {now}; no more is known"));
    }
    reports
}
