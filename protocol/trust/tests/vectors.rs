//! What is sealed, against vectors that another implementation made (`proto/vectors/trust.json`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;

use bytes::Bytes;
use serde_json::{Value, json};
use skep_protocol::signing::Signature;
use skep_trust::{
    Certificate, Chain, Grants, Invitation, InvitationCode, JoinRequest, Knock, PublicKey, Revocation, RootDocument,
    Scope, Seal, Sealed, SiteRoot, Stated,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(of: &Value) -> Vec<u8> {
    let text = of.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn key(of: &Value) -> PublicKey {
    PublicKey::from_bytes(bytes(of).try_into().unwrap())
}

fn hex_of_key(key: Option<PublicKey>) -> Option<String> {
    key.map(|key| hex(key.as_bytes()))
}

fn names<T: ToString>(of: impl IntoIterator<Item = T>) -> String {
    of.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(",")
}

fn vectors() -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../proto/vectors/trust.json")).unwrap();
    assert!(all.len() >= 45);
    all
}

/// What a statement says, by the names that the vectors use.
trait Says: Stated {
    fn says(&self) -> Value;
}

impl Says for RootDocument {
    fn says(&self) -> Value {
        json!({
            "version": self.version, "name": self.name.as_str(), "threshold": self.threshold,
            "root_keys": self.root_keys.len(), "issuers": self.issuers.len(), "operators": self.operators.len(),
            "epoch": self.epoch,
        })
    }
}

fn scope(scope: &Scope) -> Value {
    json!({
        "roles": names(&scope.roles), "name_prefix": scope.name_prefix.as_ref().map(ToString::to_string),
        "life_ms_max": scope.life_ms_max, "per_day": scope.per_day,
    })
}

fn grants(grants: &Grants) -> Value {
    json!({
        "name": grants.name.as_str(), "roles": names(&grants.roles), "capabilities": names(&grants.capabilities),
        "agents": names(&grants.agents), "scope": grants.scope.as_ref().map(scope),
    })
}

/// The members of two objects.
fn both(one: Value, other: Value) -> Value {
    let (Value::Object(mut all), Value::Object(more)) = (one, other) else { panic!("they are objects") };
    all.extend(more);
    Value::Object(all)
}

impl Says for Certificate {
    fn says(&self) -> Value {
        let own = json!({
            "epoch": self.epoch, "from": self.validity.from.0, "until": self.validity.until.0,
            "issuer": hex_of_key(self.issuer), "key": hex_of_key(Some(self.key)), "serial": self.serial.to_string(),
        });
        both(grants(&self.grants), own)
    }
}

impl Says for Invitation {
    fn says(&self) -> Value {
        let own = json!({
            "until": self.until.0, "key": hex_of_key(Some(self.key)), "operator": hex_of_key(Some(self.operator)),
            "node": hex_of_key(self.node),
        });
        both(grants(&self.grants), own)
    }
}

impl Says for Knock {
    fn says(&self) -> Value {
        json!({ "invitation": hex_of_key(Some(self.invitation)), "channel": hex(&self.channel) })
    }
}

impl Says for JoinRequest {
    fn says(&self) -> Value {
        json!({
            "node": hex_of_key(Some(self.node)), "name": self.name.as_ref().map(ToString::to_string),
            "incarnation": self.incarnation.to_string(), "channel": self.channel.as_ref().map(|channel| hex(channel)),
        })
    }
}

impl Says for Revocation {
    fn says(&self) -> Value {
        json!({
            "what": self.what.to_string(), "epoch": self.epoch, "reason": self.reason.as_str(),
            "operator": hex_of_key(Some(self.operator)),
        })
    }
}

fn seal(vector: &Value) -> Seal {
    let signature: [u8; 64] = bytes(&vector["signature"]).try_into().unwrap();
    Seal { key: key(&vector["key"]), signature: Signature::from_bytes(&signature) }
}

fn is_said(name: &str, field: &str, said: &Value, expected: &Value) {
    let is_named = matches!((said.as_str(), expected.as_str()), (Some(said), Some(part)) if said.contains(part));
    assert!(said == expected || (field == "what" && is_named), "{name}: {field}: {said}, and not {expected}");
}

fn check<T: Says + PartialEq + Debug>(vector: &Value) {
    let name = vector["name"].as_str().unwrap();
    assert_eq!(bytes(&vector["domain"]), T::DOMAIN, "{name}");
    let seals: Vec<Seal> = vector["seals"].as_array().unwrap().iter().map(seal).collect();
    let body = Bytes::from(bytes(&vector["body"]));
    let sealed = Sealed::<T>::from_parts(body.clone(), seals.clone());
    assert_eq!(Value::Bool(sealed.is_ok()), vector["decodes"], "{name}: {sealed:?}");
    let Ok(sealed) = sealed else { return };
    let holding = seals.iter().filter(|seal| sealed.is_sealed_by(seal.key));
    let holding: Vec<Value> = holding.map(|seal| Value::String(hex(seal.key.as_bytes()))).collect();
    assert_eq!(&holding, vector["sealed_by"].as_array().unwrap(), "{name}");
    assert_eq!(Value::Bool(sealed.unknown_field().is_none()), vector["understood"], "{name}");
    assert_eq!(hex(&sealed.digest()), vector["digest"].as_str().unwrap(), "{name}");
    let says = sealed.statement().says();
    for (field, expected) in vector["says"].as_object().unwrap() {
        is_said(name, field, &says[field], expected);
    }
    // Kept as it came, and encoded as the other implementation does, but for fields that are not known here.
    assert_eq!(Sealed::<T>::from_bytes(&sealed.to_bytes().into()).as_ref(), Ok(&sealed), "{name}");
    if !name.contains("field") {
        assert_eq!(Bytes::from(sealed.to_body()), body, "{name}");
    }
}

#[test]
fn what_another_implementation_sealed_is_understood_and_verified_the_same() {
    for vector in vectors() {
        match vector["kind"].as_str().unwrap() {
            "root" => check::<RootDocument>(&vector),
            "certificate" => check::<Certificate>(&vector),
            "invitation" => check::<Invitation>(&vector),
            "knock" => check::<Knock>(&vector),
            "join" => check::<JoinRequest>(&vector),
            "revocation" => check::<Revocation>(&vector),
            "chain" | "code" => {}
            other => panic!("{other}"),
        }
    }
}

#[test]
fn chains_of_another_implementation_hold_or_are_refused_for_the_same_reason() {
    let all = vectors();
    let chains: Vec<&Value> = all.iter().filter(|vector| vector["kind"] == "chain").collect();
    assert!(chains.len() >= 13);
    for vector in chains {
        let name = vector["name"].as_str().unwrap();
        let root = Sealed::from_bytes(&bytes(&vector["root"]).into()).unwrap();
        let root = SiteRoot::first(root).unwrap();
        let verified = Chain::from_bytes(&bytes(&vector["body"]).into()).and_then(|chain| chain.verify(&root));
        match verified {
            Ok(member) => assert_eq!(vector["key"].as_str(), Some(hex(member.key.as_bytes()).as_str()), "{name}"),
            Err(error) => assert_eq!(vector["refused"].as_str(), Some(error.kind()), "{name}: {error}"),
        }
    }
}

#[test]
fn the_code_of_another_implementation_is_read_and_written_the_same() {
    let all = vectors();
    let vector = all.iter().find(|vector| vector["kind"] == "code").unwrap();
    let text = vector["text"].as_str().unwrap();
    let code = InvitationCode::from_text(text).unwrap();
    assert_eq!(hex(&code.site), vector["site"].as_str().unwrap());
    assert_eq!(hex(code.node.public_key()), vector["node"].as_str().unwrap());
    assert_eq!(json!(code.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()), vector["addresses"]);
    assert_eq!(hex(code.key().public().as_bytes()), vector["key"].as_str().unwrap());
    assert_eq!(code.to_text().unwrap().as_str(), text);
}
