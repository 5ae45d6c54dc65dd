//! Statements of operators at the border, in both directions.

use skep_protocol::field::{FieldError, field};
use skep_protocol::signing::{Signature, Signed, Statement};

use crate::v1;

/// Reads a statement that was sent. Refused if it has a field that changes what it means and is not known here.
pub(super) fn signed<T: Statement>(
    name: &'static str,
    stated: Option<v1::SignedStatement>,
) -> Result<Signed<T>, FieldError> {
    let stated = stated.ok_or_else(|| field(name, "it is missing"))?;
    let signature: [u8; 64] =
        stated.signature.try_into().map_err(|_| field("signature", "give the 64 bytes of an ed25519 signature"))?;
    let signed = Signed::<T>::from_parts(stated.body.into(), Signature::from_bytes(&signature));
    let signed = signed.map_err(|error| field(name, error))?;
    match signed.unknown_field() {
        None => Ok(signed),
        Some(number) => Err(field(
            name,
            format!("field {number} changes what it means, and this Skep does not know it; upgrade this node"),
        )),
    }
}

/// The protobuf form of a statement: its bytes as they were signed.
pub fn signed_to_proto<T>(signed: &Signed<T>) -> v1::SignedStatement {
    v1::SignedStatement { body: signed.body().to_vec(), signature: signed.signature().to_bytes().to_vec() }
}
