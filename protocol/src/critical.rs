//! Signed protobuf messages: a decoder refuses one with a field that changes its meaning and that the decoder does not
//! know.

use bytes::Bytes;
use prost::Message;

use crate::codec::CodecError;

/// Fields below this number change what a statement means: a decoder refuses one that it does not know.
const CRITICAL_BELOW: u32 = 32;

/// The fields of a message by their numbers, and the messages in them.
#[derive(Debug)]
pub struct Fields(pub &'static [(u32, Option<&'static Fields>)]);

const CUT_OFF: &str = "it is cut off";

/// A number of the wire format (<https://protobuf.dev/programming-guides/encoding/#varints>).
fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CUT_OFF)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number in it has no end")
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], &'static str> {
    let count = usize::try_from(count).map_err(|_| CUT_OFF)?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(CUT_OFF)?;
    *bytes = rest;
    Ok(taken)
}

/// The first field of a message, or of a message in it, that is not known and that a decoder may not pass over.
fn first_unknown(mut bytes: &[u8], known: &Fields) -> Result<Option<u32>, &'static str> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field has no number")?;
        let inner = match key & 7 {
            0 => varint(&mut bytes).map(|_| None)?,
            1 => take(&mut bytes, 8).map(|_| None)?,
            2 => {
                let length = varint(&mut bytes)?;
                Some(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| None)?,
            _ => return Err("a field is of no sort that there is"),
        };
        let of = known.0.iter().find(|(known, _)| *known == number).map(|(_, of)| *of);
        let found = match (of, inner) {
            (Some(Some(of)), Some(inner)) => first_unknown(inner, of)?,
            (None, _) if number < CRITICAL_BELOW => Some(number),
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The error for bytes that are no such message, with the reason.
pub fn malformed(what: &'static str, why: impl ToString) -> CodecError {
    CodecError::Malformed { what, why: why.to_string() }
}

/// Decodes a message; returns also the first field in it that is not known and that a decoder may not pass over.
///
/// # Errors
/// [`CodecError::Malformed`] if the bytes are no such message.
pub fn message<M: Message + Default>(
    what: &'static str,
    body: &Bytes,
    known: &Fields,
) -> Result<(M, Option<u32>), CodecError> {
    let unknown = first_unknown(body, known).map_err(|why| malformed(what, why))?;
    let message = M::decode(body.clone()).map_err(|error| malformed(what, error))?;
    Ok((message, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Fields = Fields(&[(1, None), (2, None), (3, None)]);
    static OUTER: Fields = Fields(&[(1, None), (6, Some(&INNER)), (16, None)]);

    #[test]
    fn a_field_that_is_not_known_is_found_wherever_it_is_unless_it_may_be_passed_over() {
        let known = |bytes: &[u8]| first_unknown(bytes, &OUTER);
        assert_eq!(known(&[]), Ok(None));
        // Field 40 and field 31, numbers; field 6 with field 9 inside; a group; cut off.
        assert_eq!(known(&[0xc0, 0x02, 1]), Ok(None));
        assert_eq!(known(&[0xc0, 0x02, 1, 0xf8, 0x01, 1]), Ok(Some(31)));
        assert_eq!(known(&[0x32, 2, 0x48, 1]), Ok(Some(9)));
        assert!(known(&[0x33]).is_err());
        assert!(known(&[0x32, 9, 1]).is_err());
    }
}
