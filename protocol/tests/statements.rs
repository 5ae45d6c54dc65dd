//! What operators sign, against vectors that another implementation made (`proto/vectors/statements.json`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use serde_json::{Value, json};
use skep_protocol::command::{Command, CommandClass, CommandControl, ControlKind};
use skep_protocol::operator::{Allowed, FirstOperator, FirstReplacement, OperatorGrant};
use skep_protocol::recovery::ShardRecovery;
use skep_protocol::signing::{Signature, Signed, Statement};
use skep_protocol::time::LogInstant;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(of: &Value) -> Vec<u8> {
    let text = of.as_str().unwrap();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn names<T: Ord + ToString>(allowed: &Allowed<T>) -> String {
    match allowed {
        Allowed::Any => "any".to_owned(),
        Allowed::These(these) => these.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

/// What a statement says, by the names that the vectors use.
trait Says: Statement {
    fn says(&self) -> Value;
}

impl Says for Command {
    fn says(&self) -> Value {
        json!({
            "genesis": hex(self.place.genesis.as_bytes()), "site": self.place.site.as_str(), "shard": self.place.shard.0,
            "id": hex(self.id.as_bytes()), "target": self.target.to_string(), "verb": self.verb.as_str(),
            "args": hex(&self.args), "deadline": self.deadline.raw(), "urgent": self.class == CommandClass::Urgent,
        })
    }
}

impl Says for CommandControl {
    fn says(&self) -> Value {
        let what = match &self.what {
            ControlKind::Cancel => "cancel".to_owned(),
            ControlKind::Abort => "abort".to_owned(),
            ControlKind::Resolve { agent, done } => {
                format!("resolve {agent} {}", if *done { "done" } else { "not done" })
            }
            ControlKind::Discard => "discard".to_owned(),
        };
        json!({ "command_id": hex(self.command.as_bytes()), "what": what, "reason": self.reason.as_str() })
    }
}

impl Says for OperatorGrant {
    fn says(&self) -> Value {
        json!({
            "to": hex(self.operator.as_bytes()), "serial": self.serial, "verbs": names(&self.verbs),
            "targets": sorted(&names(&self.targets)), "broadcast": self.broadcast, "per_minute": self.per_minute,
            "admin_depth": self.admin_depth, "revoked": self.revoked, "until": self.until.map(LogInstant::raw),
        })
    }
}

impl Says for FirstOperator {
    fn says(&self) -> Value {
        json!({ "name": self.name.as_str() })
    }
}

impl Says for FirstReplacement {
    fn says(&self) -> Value {
        json!({ "new": hex(self.new.as_bytes()), "serial": self.serial })
    }
}

impl Says for ShardRecovery {
    fn says(&self) -> Value {
        json!({ "new_genesis": hex(self.genesis.as_bytes()), "last_index": self.last_index })
    }
}

/// Names in a set have no order.
fn sorted(names: &str) -> String {
    let mut names: Vec<&str> = names.split(',').collect();
    names.sort_unstable();
    names.join(",")
}

fn check<T: Says + PartialEq + std::fmt::Debug>(vector: &Value) {
    let name = vector["name"].as_str().unwrap();
    assert_eq!(bytes(&vector["domain"]), T::DOMAIN, "{name}");
    let signature: [u8; 64] = bytes(&vector["signature"]).try_into().unwrap();
    let (body, signature) = (Bytes::from(bytes(&vector["body"])), Signature::from_bytes(&signature));
    let signed = Signed::<T>::from_parts(body.clone(), signature);
    assert_eq!(Value::Bool(signed.is_ok()), vector["decodes"], "{name}: {signed:?}");
    let Ok(signed) = signed else { return };
    assert_eq!(Value::Bool(signed.is_signed()), vector["signed"], "{name}");
    assert_eq!(Value::Bool(signed.unknown_field().is_none()), vector["understood"], "{name}");
    assert_eq!(hex(signed.signer().as_bytes()), vector["signer"].as_str().unwrap(), "{name}");
    let says = signed.statement().says();
    for (field, expected) in vector["says"].as_object().unwrap() {
        assert_eq!(&says[field], expected, "{name}: {field}");
    }
    // Nodes keep it as it came, and understand it the same if it is encoded again.
    let kept = postcard::to_stdvec(&signed).unwrap();
    let again: Signed<T> = postcard::from_bytes(&kept).unwrap();
    assert_eq!((again.body(), again.is_signed()), (&body, signed.is_signed()), "{name}");
    assert_eq!(T::from_body(&signed.to_body().into()).unwrap(), (T::from_body(&body).unwrap().0, None), "{name}");
}

#[test]
fn what_another_implementation_signed_is_understood_and_verified_the_same() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../proto/vectors/statements.json")).unwrap();
    for vector in &vectors {
        match vector["kind"].as_str().unwrap() {
            "command" => check::<Command>(vector),
            "control" => check::<CommandControl>(vector),
            "grant" => check::<OperatorGrant>(vector),
            "first" => check::<FirstOperator>(vector),
            "replace-first" => check::<FirstReplacement>(vector),
            "recover" => check::<ShardRecovery>(vector),
            other => panic!("{other}"),
        }
    }
    assert!(vectors.len() >= 20);
}

/// This implementation encodes a statement to the same bytes as the others, as long as none adds a field.
#[test]
fn a_statement_is_encoded_as_others_encode_it() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../proto/vectors/statements.json")).unwrap();
    let vector = |name: &str| vectors.iter().find(|vector| vector["name"] == name).unwrap();
    let body = |name: &str| Bytes::from(bytes(&vector(name)["body"]));
    let command = body("an urgent command for a group, in waves, in the place of another one");
    assert_eq!(Command::from_body(&command).unwrap().0.to_body(), command);
    let control = body("resolve");
    assert_eq!(CommandControl::from_body(&control).unwrap().0.to_body(), control);
    let replacement = body("a replacement of the first operator");
    assert_eq!(FirstReplacement::from_body(&replacement).unwrap().0.to_body(), replacement);
    let recovery = body("a recovery");
    assert_eq!(ShardRecovery::from_body(&recovery).unwrap().0.to_body(), recovery);
}
