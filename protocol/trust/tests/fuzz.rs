//! Every decoder of this crate under rubbish: the fixed corpus first, then whatever bolero makes up.
//!
//! `cargo bolero test -p skep-trust NAME` looks for longer, guided by coverage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;

use bytes::Bytes;
use skep_trust::{
    AgentPattern, Certificate, Chain, Invitation, InvitationCode, JoinReply, JoinRequest, Knock, PublicKey, Revocation,
    Role, RootDocument, Sealed, SignedRevocation, SiteId, SiteNews, SiteRoot, Stated, TrustHello,
};

/// A statement that a decoder understood can be encoded again, and is understood the same.
fn statement<T: Stated + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok((value, _)) = T::from_body(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(T::from_body(&value.to_body().into()), Ok((value, None)));
    }
}

fn sealed(bytes: &[u8]) {
    if let Ok(value) = Sealed::<Certificate>::from_bytes(&Bytes::copy_from_slice(bytes)) {
        let again = Sealed::<Certificate>::from_bytes(&value.to_bytes().into());
        assert_eq!(again, Ok(value));
    }
}

/// A root of which the test has no keys: whatever is shown under it is refused, and never a panic.
fn root() -> SiteRoot {
    let by = [1, 2].map(|n| skep_trust::SecretKey::from_seed(&[n; 32]));
    let keys = by.each_ref().map(skep_trust::SecretKey::public);
    let document = RootDocument {
        after: None,
        version: 1,
        name: "hall".parse().unwrap(),
        nonce: [0; 16],
        root_keys: keys.into(),
        threshold: 2,
        issuers: [].into(),
        operators: [].into(),
        epoch: 0,
    };
    SiteRoot::first(Sealed::seal(&document, &[&by[0], &by[1]]).unwrap()).unwrap()
}

fn chain(bytes: &[u8]) {
    if let Ok(value) = Chain::from_bytes(&Bytes::copy_from_slice(bytes)) {
        let again = Chain::from_bytes(&value.to_bytes().into());
        assert_eq!(again.as_ref(), Ok(&value));
        assert!(value.verify(&root()).is_err());
    }
}

fn signed_revocation(bytes: &[u8]) {
    if let Ok(value) = SignedRevocation::from_bytes(&Bytes::copy_from_slice(bytes)) {
        let again = SignedRevocation::from_bytes(&value.to_bytes().into());
        assert_eq!(again.as_ref(), Ok(&value));
        assert!(value.check(&root(), 0).is_err());
    }
}

fn hello(bytes: &[u8]) {
    if let Ok(value) = TrustHello::from_bytes(&Bytes::copy_from_slice(bytes)) {
        let again = TrustHello::from_bytes(&value.to_bytes().into());
        assert_eq!(again, Ok(value));
    }
}

fn news(bytes: &[u8]) {
    if let Ok(value) = SiteNews::from_bytes(&Bytes::copy_from_slice(bytes)) {
        let again = SiteNews::from_bytes(&value.to_bytes().into());
        assert_eq!(again, Ok(value));
    }
}

fn code(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(value) = InvitationCode::from_text(&text) {
        let again = value.to_text().unwrap();
        assert_eq!(again.as_str(), text.trim().to_ascii_lowercase());
        assert_eq!(InvitationCode::from_text(&again), Ok(value));
    }
    if let Ok(pattern) = text.parse::<AgentPattern>() {
        assert_eq!(pattern.to_string(), text);
    }
    let _ = (text.parse::<PublicKey>(), text.parse::<SiteId>(), text.parse::<Role>());
}

fn replay(target: &str, decode: fn(&[u8])) {
    let corpus = include_str!("corpus.txt").lines().filter_map(|line| line.split_once(' '));
    let seeds: Vec<&str> = corpus.filter(|(name, _)| *name == target).map(|(_, hex)| hex).collect();
    assert!(!seeds.is_empty(), "no corpus for {target}");
    for hex in seeds {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        decode(&bytes);
        // Also bytes near it: cut off, and with a bit flipped.
        (0..bytes.len()).for_each(|end| decode(&bytes[..end]));
        for bit in 0..bytes.len() * 8 {
            let mut near = bytes.clone();
            near[bit / 8] ^= 1 << (bit % 8);
            decode(&near);
        }
    }
}

macro_rules! targets {
    ($($name:ident: $decode:expr,)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $decode);
            bolero::check!().for_each(|bytes: &[u8]| $decode(bytes));
        })*
    };
}

targets! {
    fuzz_root: statement::<RootDocument>,
    fuzz_certificate: statement::<Certificate>,
    fuzz_invitation: statement::<Invitation>,
    fuzz_knock: statement::<Knock>,
    fuzz_join_request: statement::<JoinRequest>,
    fuzz_join_reply: statement::<JoinReply>,
    fuzz_revocation: statement::<Revocation>,
    fuzz_sealed: sealed,
    fuzz_chain: chain,
    fuzz_signed_revocation: signed_revocation,
    fuzz_hello: hello,
    fuzz_news: news,
    fuzz_code: code,
}
