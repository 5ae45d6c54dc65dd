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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::found::{FirstNode, Founding, found};
    use skep_protocol::ids::Incarnation;
    use skep_trust::{SecretKey, SiteTime};

    const DAY_MS: u64 = 24 * 3_600_000;

    /// The view of a site's first node, whose certificate holds for 90 days.
    fn site(clock: SiteClock) -> SiteHandle {
        let [root, operator, node] = [1, 2, 3].map(|n| SecretKey::from_seed(&[n; 32]));
        let public = node.public();
        let founded = found(&Founding {
            site: "hall".parse().unwrap(),
            nonce: [9; 16],
            root_keys: &[root],
            threshold: 1,
            operator: (&operator, "first".parse().unwrap()),
            node: FirstNode {
                key: &node,
                name: "edge-1".parse().unwrap(),
                incarnation: Incarnation([4; 16]),
                serial: [5; 16],
                secret: [6; 16],
            },
        });
        let founded = founded.unwrap();
        SiteHandle::new(founded.view, founded.chain, public, clock)
    }

    #[test]
    fn a_node_says_when_its_certificate_ends_or_has_ended_and_when_nobody_tells_it_the_time() {
        let faults = |clock, up_ms| -> Vec<ShardFault> {
            faults_of_site(&site(clock), up_ms).into_iter().map(|report| report.fault).collect()
        };
        let known = |days| SiteClock::Known(SiteTime(days * DAY_MS));
        assert!(faults(known(60), 0).is_empty(), "it is to be renewed from here on");
        assert_eq!(faults(known(80), 0), [ShardFault::CertificateEnds]);
        assert_eq!(faults(known(91), 0), [ShardFault::CertificateRefused]);
        let unknown = SiteClock::AtLeast(SiteTime(DAY_MS));
        assert!(faults(unknown, 59_999).is_empty(), "it has just begun");
        assert_eq!(faults(unknown, 60_000), [ShardFault::SiteClockUnknown]);
    }
}
