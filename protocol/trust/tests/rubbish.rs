//! Members under chance: no altered statement holds, and no rubbish causes a panic. A failure prints its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use skep_trust::{
    Admission, Certificate, Chain, ChainLink, Grants, PublicKey, Role, RootDocument, Scope, Sealed, SecretKey, Serial,
    SiteClock, SiteTime, SiteView, Validity,
};

const NOW: SiteClock = SiteClock::Known(SiteTime(500));

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn key(n: u8) -> PublicKey {
    secret(n).public()
}

fn view() -> SiteView {
    let scope = Scope { roles: Role::ALL.into(), name_prefix: None, life_ms_max: 1_000, per_day: None };
    let document = RootDocument {
        after: None,
        version: 1,
        name: "hall".parse().unwrap(),
        nonce: [9; 16],
        root_keys: [key(1)].into(),
        threshold: 1,
        issuers: [(key(10), scope)].into(),
        operators: [].into(),
        epoch: 0,
    };
    SiteView::new(vec![Sealed::seal(&document, &[&secret(1)]).unwrap()]).unwrap()
}

fn certificate(view: &SiteView) -> Certificate {
    Certificate {
        site: view.root().site(),
        serial: Serial::from_bytes([3; 16]),
        key: key(30),
        grants: Grants {
            name: "robot-7".parse().unwrap(),
            roles: [Role::Robot].into(),
            capabilities: ["lift".parse().unwrap()].into(),
            agents: [].into(),
            scope: None,
        },
        epoch: 0,
        validity: Validity { from: SiteTime(0), until: SiteTime(1_000) },
        issuer: Some(key(10)),
        invitation: None,
    }
}

fn shown(certificate: &Certificate) -> Vec<u8> {
    let certificate = Sealed::seal(certificate, &[&secret(10)]).unwrap();
    Chain::new(vec![ChainLink { certificate, sponsor: None }]).unwrap().to_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_was_altered_by_a_bit_is_refused_or_means_what_it_did(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let view = view();
        let issued = certificate(&view);
        let mut bytes = shown(&issued);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        // A tag that became that of a field which may be passed over takes its content along.
        if let Ok(admitted) = Admission::default().admit(&view, &Bytes::from(bytes), key(30), NOW) {
            prop_assert_eq!(&admitted.member.grants, &issued.grants);
            prop_assert_eq!(admitted.member.validity, issued.validity);
        }
    }

    #[test]
    fn rubbish_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let refused = Admission::default().admit(&view(), &Bytes::from(bytes), key(30), NOW);
        prop_assert!(refused.is_err());
    }

    #[test]
    fn nobody_but_the_issuer_makes_a_member(by in any::<u8>(), of in any::<u8>()) {
        let view = view();
        let made = Certificate { key: key(of), issuer: Some(key(by)), ..certificate(&view) };
        let sealed = Sealed::seal(&made, &[&secret(by)]).unwrap();
        let chain = Chain::new(vec![ChainLink { certificate: sealed, sponsor: None }]).unwrap();
        prop_assert_eq!(chain.verify(view.root()).is_ok(), by == 10);
    }

    #[test]
    fn a_certificate_is_read_as_it_was_written(
        name in "[a-z0-9./:_-]{1,64}",
        capabilities in prop::collection::btree_set("[a-z/]{1,20}", 0..16),
        agents in prop::collection::btree_set("[a-z]{1,20}[*]?", 0..16),
        numbers in any::<(u64, u64, u64)>(),
    ) {
        let view = view();
        let (epoch, one, other) = numbers;
        let made = Certificate {
            epoch,
            validity: Validity { from: SiteTime(one.min(other)), until: SiteTime(one.max(other)) },
            grants: Grants {
                name: name.parse().unwrap(),
                capabilities: capabilities.iter().map(|one| one.parse().unwrap()).collect(),
                agents: agents.iter().map(|one| one.parse().unwrap()).collect(),
                ..certificate(&view).grants
            },
            ..certificate(&view)
        };
        let sealed = Sealed::seal(&made, &[&secret(10)]).unwrap();
        let again = Sealed::<Certificate>::from_bytes(&sealed.to_bytes().into()).unwrap();
        prop_assert_eq!(again.statement(), &made);
        prop_assert!(again.is_sealed_by(key(10)));
    }
}
