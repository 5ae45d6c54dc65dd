//! The statement that a shard goes on as another group.

use bytes::Bytes;
use prost::Message as _;

use super::{key, place, v1};
use crate::codec::CodecError;
use crate::critical::{Fields, malformed, message};
use crate::field::{FieldError, field};
use crate::ids::Genesis;
use crate::limits;
use crate::recovery::ShardRecovery;
use crate::signing::{OperatorKey, Place, Statement};

pub(super) static RECOVER: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None), (6, None)]);

fn recovery(stated: &v1::RecoverStatement) -> Result<ShardRecovery, FieldError> {
    let genesis: Result<[u8; 16], _> = stated.new_genesis.as_slice().try_into();
    let genesis = genesis.map_err(|_| field("new_genesis", "give 16 random bytes"))?;
    Ok(ShardRecovery {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        by: key("operator", &stated.operator)?,
        genesis: Genesis::from_bytes(genesis),
        last_index: stated.last_index,
    })
}

impl Statement for ShardRecovery {
    const WHAT: &'static str = "recovery of a shard";
    const DOMAIN: &'static [u8] = b"skep/recover/1\0";
    const BYTES_MAX: usize = limits::FIRST_STATEMENT_BYTES_MAX;

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
        let stated = v1::RecoverStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.by.as_bytes().to_vec(),
            new_genesis: self.genesis.as_bytes().to_vec(),
            last_index: self.last_index,
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &RECOVER)?;
        Ok((recovery(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
