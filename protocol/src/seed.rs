//! The 32 secret bytes of a key, as a file has them: 64 hexadecimal digits. The software wipes all copies.

use zeroize::Zeroizing;

/// Length of a seed, in bytes.
pub const SEED_BYTES: usize = 32;

/// The digits of a seed.
pub fn to_digits(seed: &[u8; SEED_BYTES]) -> Zeroizing<String> {
    // The text is never moved as it grows, so that no copy of it stays behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * SEED_BYTES));
    for &byte in seed {
        text.extend([byte >> 4, byte & 0x0f].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16)));
    }
    text
}

/// The seed of these digits; none if they are not 64 hexadecimal digits.
pub fn from_digits(text: &str) -> Option<Zeroizing<[u8; SEED_BYTES]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if text.len() != 2 * SEED_BYTES {
        return None;
    }
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    for (byte, pair) in seed.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_64_digits_and_is_read_as_it_was_written() {
        let text = format!("00ff{}", "1c".repeat(30));
        let seed = from_digits(&text).unwrap();
        assert_eq!((seed[0], seed[1], seed[31]), (0, 0xff, 0x1c));
        assert_eq!(to_digits(&seed).as_str(), text);
        assert_eq!(from_digits(&text.to_uppercase()), Some(seed));
        let odd = "\u{e4}".repeat(32);
        for bad in ["", "00", &text[1..], &text.replace('c', "g"), &odd] {
            assert_eq!(from_digits(bad), None, "{bad}");
        }
    }
}
