//! Bytes as text that people copy, and that fits into a QR code: a checksum finds what they mistype.
//!
//! The alphabet, the checksum and the form are those of bech32m
//! (<https://github.com/bitcoin/bips/blob/master/bip-0350.mediawiki>), in longer texts than it allows. In those the
//! checksum finds each mistake in up to three characters as a rule, and all but one in a thousand million of the
//! others.

use zeroize::Zeroizing;

/// Why a text does not hold bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeTextError {
    /// The text is too long.
    #[error("it has {chars} characters; at most {max} are allowed")]
    TooLong {
        /// Length of the text, in characters.
        chars: usize,
        /// The limit, in characters.
        max: usize,
    },
    /// The text does not begin as it should.
    #[error("it does not begin with {prefix}1")]
    Prefix {
        /// The beginning that it should have.
        prefix: &'static str,
    },
    /// The text holds a character that no such text has.
    #[error("it holds {found:?}; copy it again")]
    Character {
        /// The first such character.
        found: char,
    },
    /// The text mixes large and small letters.
    #[error("it mixes large and small letters; copy it again")]
    Mixed,
    /// A character is wrong, missing, or one too many.
    #[error("a character of it is wrong or missing; copy it again")]
    Checksum,
}

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
/// The checksum of a text without a mistake.
const WHOLE: u32 = 0x2bc8_30a3;
const CHECKSUM_CHARS: usize = 6;

fn sum(values: impl Iterator<Item = u8>) -> u32 {
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let mixed = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        let added = GENERATOR.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1);
        added.fold(mixed, |sum, (_, of)| sum ^ of)
    })
}

fn expanded(prefix: &str) -> impl Iterator<Item = u8> + '_ {
    prefix.bytes().map(|byte| byte >> 5).chain([0]).chain(prefix.bytes().map(|byte| byte & 31))
}

/// Groups of so many bits from groups of others. If the rest is to be kept, zeros fill it up.
fn regrouped(values: &[u8], from: u32, to: u32, keep_rest: bool) -> Option<Vec<u8>> {
    let (mut held, mut bits, mut out) = (0_u32, 0_u32, Vec::with_capacity(values.len() * 2));
    for value in values {
        held = ((held << from) | u32::from(*value)) & 0xffff;
        bits += from;
        while bits >= to {
            bits -= to;
            out.push(u8::try_from((held >> bits) & ((1 << to) - 1)).ok()?);
        }
    }
    let rest = held & ((1 << bits) - 1);
    if keep_rest && bits > 0 {
        out.push(u8::try_from(rest << (to - bits)).ok()?);
    }
    // The bits that fill the last character up hide nothing.
    (keep_rest || (bits < from && rest == 0)).then_some(out)
}

/// The text of these bytes.
pub(crate) fn encode(prefix: &str, bytes: &[u8]) -> String {
    let values = Zeroizing::new(regrouped(bytes, 8, 5, true).unwrap_or_default());
    let zeros = [0; CHECKSUM_CHARS];
    let check = sum(expanded(prefix).chain(values.iter().copied()).chain(zeros)) ^ WHOLE;
    let check = (0..CHECKSUM_CHARS).rev().map(|at| (check >> (5 * at)) & 31);
    // The text is never moved as it grows, so that no copy of a secret stays behind.
    let mut text = String::with_capacity(prefix.len() + 1 + values.len() + CHECKSUM_CHARS);
    text.push_str(prefix);
    text.push('1');
    let all = values.iter().map(|value| usize::from(*value)).chain(check.map(|value| value as usize));
    text.extend(all.filter_map(|value| ALPHABET.get(value)).map(|byte| char::from(*byte)));
    text
}

/// The values of a text's characters, each of 5 bits, without the checksum.
fn values(prefix: &'static str, text: &str) -> Result<Zeroizing<Vec<u8>>, CodeTextError> {
    let is_mixed = text.bytes().any(|c| c.is_ascii_lowercase()) && text.bytes().any(|c| c.is_ascii_uppercase());
    if is_mixed {
        return Err(CodeTextError::Mixed);
    }
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let rest = lower.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('1'));
    let rest = rest.ok_or(CodeTextError::Prefix { prefix })?;
    let value = |found: char| {
        let at = ALPHABET.iter().position(|of| char::from(*of) == found);
        at.and_then(|at| u8::try_from(at).ok()).ok_or(CodeTextError::Character { found })
    };
    // As long as it becomes: a vector that grows leaves copies behind.
    let mut values = Zeroizing::new(Vec::with_capacity(rest.len()));
    for found in rest.chars() {
        values.push(value(found)?);
    }
    let length = values.len().checked_sub(CHECKSUM_CHARS).ok_or(CodeTextError::Checksum)?;
    if sum(expanded(prefix).chain(values.iter().copied())) != WHOLE {
        return Err(CodeTextError::Checksum);
    }
    values.truncate(length);
    Ok(values)
}

/// The bytes of a text with this prefix, in small or in large letters, of so many characters at most.
pub(crate) fn decode(prefix: &'static str, text: &str, chars_max: usize) -> Result<Vec<u8>, CodeTextError> {
    let text = text.trim();
    if text.len() > chars_max {
        return Err(CodeTextError::TooLong { chars: text.chars().count(), max: chars_max });
    }
    let values = values(prefix, text)?;
    regrouped(&values, 5, 8, false).ok_or(CodeTextError::Checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_bip_350() {
        assert_eq!(values("a", "A1LQFN3A").as_deref(), Ok(&vec![]));
        assert_eq!(values("a", "a1lqfn3a").as_deref(), Ok(&vec![]));
        let all: Vec<u8> = (0..32).rev().collect();
        assert_eq!(values("abcdef", "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx").as_deref(), Ok(&all));
        // With the checksum of bech32 (BIP 173), which misses some characters that are left out at the end.
        assert_eq!(values("a", "a12uel5l"), Err(CodeTextError::Checksum));
        assert_eq!(values("a", "a1lqfn3"), Err(CodeTextError::Checksum));
    }

    #[test]
    fn bytes_of_any_length_are_read_as_they_were_written() {
        for length in 0..80_u8 {
            let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(37)).collect();
            let text = encode("skep", &bytes);
            assert_eq!(decode("skep", &text, 200), Ok(bytes.clone()), "{text}");
            assert_eq!(decode("skep", &format!(" {}\n", text.to_ascii_uppercase()), 200), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_mistyped_is_found_at_each_place() {
        let text = encode("skep", &[7; 67]);
        for at in 0..text.len() {
            let others = ['q', 'p', 'x', '1', 'b', '\u{e4}'].into_iter().filter(|c| !text[at..].starts_with(*c));
            for other in others {
                let mut wrong = text.clone();
                wrong.replace_range(at..=at, &other.to_string());
                assert!(decode("skep", &wrong, 200).is_err(), "{wrong}");
            }
            let mut short = text.clone();
            short.remove(at);
            assert!(decode("skep", &short, 200).is_err(), "{short}");
        }
        let mut mixed = text.clone();
        mixed.replace_range(..1, "S");
        assert_eq!(decode("skep", &mixed, 200), Err(CodeTextError::Mixed));
        assert!(matches!(decode("skep", &text, 20), Err(CodeTextError::TooLong { max: 20, .. })));
    }
}
