//! The token that callers over TCP must know.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use skep_consensus::{ReadableBy, write_whole};

/// The shortest token that counts as a whole one, in characters.
const TOKEN_BYTES_MIN: usize = 32;

/// Why the node does not use the file of the token.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub(crate) struct TokenError {
    path: PathBuf,
    why: String,
}

/// The token for the API over TCP. The node makes one if there is none.
///
/// # Errors
/// [`TokenError`] if other users can read the file, if it holds no whole token, or if the node cannot read or make it.
pub(crate) fn token(path: &Path) -> Result<String, TokenError> {
    let failed = |why: &dyn Display| TokenError { path: path.to_owned(), why: why.to_string() };
    if let Ok(known) = std::fs::metadata(path)
        && known.permissions().mode() & 0o077 != 0
    {
        return Err(failed(&"other users can read it: remove it, and the node makes another"));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let token = text.trim();
            let whole = token.len() >= TOKEN_BYTES_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
            let cut = "it holds no token, and may be cut off; remove it, and the node makes another";
            return if whole { Ok(token.to_owned()) } else { Err(failed(&cut)) };
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(&e)),
    }
    let bytes: [u8; 32] = rand::random();
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_whole(path, format!("{token}\n").as_bytes(), ReadableBy::Owner).map_err(|e| failed(&e))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = token(&path).unwrap();
        assert_eq!(token(&path).unwrap(), made);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(token(&path).is_err());
        std::fs::write(&path, "a").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(token(&path).is_err());
    }
}
