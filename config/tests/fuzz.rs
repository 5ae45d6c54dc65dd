//! Configuration files with random bytes in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;

use skep_config::{EXAMPLE, Overrides, load};

fn decode(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    if let Err(error) = load(Some(file.path()), &Overrides::default()) {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn fuzz_config_file() {
    decode(EXAMPLE.as_bytes());
    bolero::check!().with_iterations(300).with_type::<(u16, Vec<u8>)>().for_each(|(at, rubbish)| {
        let mut near = EXAMPLE.as_bytes().to_vec();
        let at = usize::from(*at) % near.len();
        near.splice(at..at, rubbish.iter().copied());
        decode(&near);
    });
}
