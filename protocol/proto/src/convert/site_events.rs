//! What changes in the directory of a site, as watchers are told.

use skep_protocol::change::ChangeKind;
use skep_protocol::history::HistoryRecord;
use skep_protocol::site::{SiteChange, SiteKey};

use crate::v1;

/// What a change means for the directory; none if it means nothing.
pub fn site_event(record: &HistoryRecord) -> Option<v1::SiteEvent> {
    let ChangeKind::Site(change) = &record.change.what else { return None };
    Some(v1::SiteEvent {
        index: record.index,
        term: record.term,
        clock: record.change.at.raw(),
        ..stated(change).or_else(|| decided(change))?
    })
}

fn event(kind: &str) -> v1::SiteEvent {
    v1::SiteEvent { kind: kind.to_owned(), ..v1::SiteEvent::default() }
}

/// An event of a member.
fn of(kind: &str, member: &SiteKey) -> v1::SiteEvent {
    v1::SiteEvent { member: member.to_string(), ..event(kind) }
}

/// An event that is in a sealed statement; none if there is no such statement.
fn stated(change: &SiteChange) -> Option<v1::SiteEvent> {
    let (event, statement) = match change {
        SiteChange::Founded { document } => (v1::SiteEvent { count: 1, ..event("founded") }, document),
        SiteChange::Rooted { version, document } => (v1::SiteEvent { count: *version, ..event("rooted") }, document),
        SiteChange::Invited { invitation, name, operator, sealed } => {
            let (invitation, name, by) = (invitation.to_string(), name.to_string(), operator.to_string());
            (v1::SiteEvent { invitation, name, by, ..event("invited") }, sealed)
        }
        SiteChange::Redeemed { invitation, node, name, request } => {
            let (invitation, name) = (invitation.to_string(), name.to_string());
            (v1::SiteEvent { invitation, name, ..of("redeemed", node) }, request)
        }
        SiteChange::Issued { member, name, issuer, certificate } => {
            let by = issuer.map(|issuer| issuer.to_string()).unwrap_or_default();
            (v1::SiteEvent { name: name.to_string(), by, ..of("issued", member) }, certificate)
        }
        SiteChange::RevocationWaits { operator, voters, revocation } => {
            let by = operator.to_string();
            (v1::SiteEvent { by, count: (*voters).into(), ..event("revocation-waits") }, revocation)
        }
        SiteChange::Revoked { operator, members, revocation } => {
            let by = operator.to_string();
            (v1::SiteEvent { by, count: (*members).into(), ..event("revoked") }, revocation)
        }
        SiteChange::InvitationsEnded { .. }
        | SiteChange::RevocationDropped { .. }
        | SiteChange::Out { .. }
        | SiteChange::Left { .. }
        | SiteChange::Forgotten { .. }
        | SiteChange::Located { .. }
        | SiteChange::Refused { .. } => return None,
    };
    Some(v1::SiteEvent { statement: statement.clone(), ..event })
}

/// An event that the directory decided, or that a member said of itself; none if it was stated.
fn decided(change: &SiteChange) -> Option<v1::SiteEvent> {
    Some(match change {
        SiteChange::InvitationsEnded { count, why } => {
            let detail = why.name().to_owned();
            v1::SiteEvent { count: (*count).into(), detail, ..event("invitations-ended") }
        }
        SiteChange::RevocationDropped { operator, why } => {
            v1::SiteEvent { by: operator.to_string(), detail: why.to_string(), ..event("revocation-dropped") }
        }
        SiteChange::Out { member, name } => v1::SiteEvent { name: name.to_string(), ..of("out", member) },
        SiteChange::Left { member, name } => v1::SiteEvent { name: name.to_string(), ..of("left", member) },
        SiteChange::Forgotten { member, name } => v1::SiteEvent { name: name.to_string(), ..of("forgotten", member) },
        SiteChange::Located { member, addresses } => {
            let all = [addresses.control, addresses.mesh].into_iter().flatten().map(|address| address.to_string());
            v1::SiteEvent { detail: all.collect::<Vec<_>>().join(" "), ..of("located", member) }
        }
        SiteChange::Refused { peer, why } => {
            let member = peer.map(|peer| peer.to_string()).unwrap_or_default();
            v1::SiteEvent { member, detail: why.to_string(), ..event("refused") }
        }
        SiteChange::Founded { .. }
        | SiteChange::Invited { .. }
        | SiteChange::Redeemed { .. }
        | SiteChange::Issued { .. }
        | SiteChange::RevocationWaits { .. }
        | SiteChange::Revoked { .. }
        | SiteChange::Rooted { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use skep_protocol::change::{Change, ShardChange};
    use skep_protocol::site::{InvitationsEnd, SiteAddresses, SiteRefusal};
    use skep_protocol::time::LogInstant;

    use super::*;

    fn told(what: impl Into<ChangeKind>) -> Option<v1::SiteEvent> {
        let change = Change { at: LogInstant::from_raw(12), request: None, what: what.into() };
        site_event(&HistoryRecord { index: 3, term: 2, change })
    }

    #[test]
    fn what_was_stated_is_told_with_the_statement_and_what_was_decided_with_why() {
        let (member, by) = (SiteKey::from_bytes([7; 32]), SiteKey::from_bytes([8; 32]));
        let issued =
            SiteChange::Issued { member, name: "robot-7".parse().unwrap(), issuer: Some(by), certificate: vec![1, 2] };
        let event = told(issued).unwrap();
        assert_eq!((event.kind.as_str(), event.name.as_str(), event.statement), ("issued", "robot-7", vec![1, 2]));
        assert_eq!((event.member, event.by), (member.to_string(), by.to_string()));
        assert_eq!((event.index, event.term, event.clock), (3, 2, 12));
        let ended = told(SiteChange::InvitationsEnded { count: 4, why: InvitationsEnd::ClockLost }).unwrap();
        assert_eq!((ended.kind.as_str(), ended.count, ended.detail.as_str()), ("invitations-ended", 4, "clock-lost"));
        let control = Some("10.0.0.7:7341".parse().unwrap());
        let located = SiteChange::Located { member, addresses: SiteAddresses { control, mesh: None } };
        assert_eq!(told(located).unwrap().detail, "10.0.0.7:7341");
        let refused = SiteChange::Refused { peer: Some(by), why: Box::new(SiteRefusal::SerialUsed.into()) };
        let refused = told(refused).unwrap();
        assert_eq!((refused.kind.as_str(), refused.member), ("refused", by.to_string()));
        assert!(!refused.detail.is_empty());
        assert_eq!(told(ShardChange::ClockLost { now: LogInstant::ZERO }), None);
    }
}
