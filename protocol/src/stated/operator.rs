//! Grants, and statements about a shard's first operator.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{PAIR, TARGET, key, place, stated_target, target, v1};
use crate::codec::CodecError;
use crate::command::Target;
use crate::critical::{Fields, malformed, message};
use crate::field::{FieldError, InField as _, field};
use crate::limits;
use crate::operator::{Allowed, FirstOperator, FirstReplacement, OperatorGrant};
use crate::signing::{OperatorKey, Place, Statement};
use crate::text::{OperatorName, Verb};
use crate::time::LogInstant;

static TARGETS: Fields = Fields(&[(1, None), (2, Some(&TARGET))]);
pub(super) static GRANT: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, None),
    (8, Some(&PAIR)),
    (9, Some(&TARGETS)),
    (10, None),
    (11, None),
    (12, None),
    (13, None),
    (14, None),
]);
pub(super) static FIRST: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None)]);
pub(super) static REPLACE_FIRST: Fields =
    Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None), (6, None), (7, None)]);

/// What is allowed: nothing if the field was left out.
fn allowed<T: Ord, F>(
    name: &'static str,
    any: bool,
    named: Vec<F>,
    one: impl Fn(F) -> Result<T, FieldError>,
) -> Result<Allowed<T>, FieldError> {
    match any {
        true if named.is_empty() => Ok(Allowed::Any),
        true => Err(field(name, "give any, or names, and not both")),
        false => named.into_iter().map(one).collect::<Result<BTreeSet<T>, _>>().map(Allowed::These),
    }
}

fn grant(stated: v1::GrantStatement) -> Result<OperatorGrant, FieldError> {
    let (verbs, targets) = (stated.verbs.unwrap_or_default(), stated.targets.unwrap_or_default());
    Ok(OperatorGrant {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        by: key("operator", &stated.operator)?,
        operator: key("to", &stated.to)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
        // The first operator has number 0, which no statement has.
        serial: Some(stated.serial).filter(|serial| *serial > 0).ok_or_else(|| field("serial", "give 1 or more"))?,
        verbs: allowed("verbs", verbs.any, verbs.names, |verb| Verb::new(&verb).in_field("verbs"))?,
        targets: allowed("targets", targets.any, targets.targets, |one| target(Some(one)))?,
        broadcast: stated.broadcast,
        per_minute: stated.per_minute,
        admin_depth: stated.admin_depth,
        revoked: stated.revoked,
        until: Some(LogInstant::from_raw(stated.until)).filter(|until| *until > LogInstant::ZERO),
    })
}

fn stated_verbs(verbs: &Allowed<Verb>) -> v1::StatedNames {
    match verbs {
        Allowed::Any => v1::StatedNames { any: true, names: Vec::new() },
        Allowed::These(these) => v1::StatedNames { any: false, names: these.iter().map(ToString::to_string).collect() },
    }
}

fn stated_targets(targets: &Allowed<Target>) -> v1::StatedTargets {
    match targets {
        Allowed::Any => v1::StatedTargets { any: true, targets: Vec::new() },
        Allowed::These(these) => v1::StatedTargets { any: false, targets: these.iter().map(stated_target).collect() },
    }
}

impl Statement for OperatorGrant {
    const WHAT: &'static str = "grant";
    const DOMAIN: &'static [u8] = b"skep/grant/1\0";
    const BYTES_MAX: usize = limits::GRANT_STATEMENT_BYTES_MAX;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.by
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { by: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::GrantStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.by.as_bytes().to_vec(),
            to: self.operator.as_bytes().to_vec(),
            name: self.name.to_string(),
            serial: self.serial,
            verbs: Some(stated_verbs(&self.verbs)),
            targets: Some(stated_targets(&self.targets)),
            broadcast: self.broadcast,
            per_minute: self.per_minute,
            admin_depth: self.admin_depth,
            revoked: self.revoked,
            until: self.until.map_or(0, LogInstant::raw),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &GRANT)?;
        Ok((grant(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

fn first(stated: &v1::FirstOperatorStatement) -> Result<FirstOperator, FieldError> {
    Ok(FirstOperator {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        operator: key("operator", &stated.operator)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
    })
}

impl Statement for FirstOperator {
    const WHAT: &'static str = "first operator";
    const DOMAIN: &'static [u8] = b"skep/first/1\0";
    const BYTES_MAX: usize = limits::FIRST_STATEMENT_BYTES_MAX;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.operator
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { operator: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::FirstOperatorStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.operator.as_bytes().to_vec(),
            name: self.name.to_string(),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &FIRST)?;
        Ok((first(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

fn replacement(stated: &v1::ReplaceFirstStatement) -> Result<FirstReplacement, FieldError> {
    Ok(FirstReplacement {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        old: key("operator", &stated.operator)?,
        new: key("new", &stated.new)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
        serial: stated.serial,
    })
}

impl Statement for FirstReplacement {
    const WHAT: &'static str = "replacement of the first operator";
    const DOMAIN: &'static [u8] = b"skep/replace-first/1\0";
    const BYTES_MAX: usize = limits::FIRST_STATEMENT_BYTES_MAX;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.old
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { old: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::ReplaceFirstStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.old.as_bytes().to_vec(),
            new: self.new.as_bytes().to_vec(),
            name: self.name.to_string(),
            serial: self.serial,
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &REPLACE_FIRST)?;
        Ok((replacement(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
