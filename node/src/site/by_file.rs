//! What goes by file between a machine without a network and its site: its request to join, and the reply.
//!
//! Neither holds a secret, and both are sealed: whoever carries them can read them, and change nothing.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use skep_trust::{JoinReply, JoinRequest, Sealed, Stated};

use super::error::SiteFilesError;

/// A statement that goes by file.
pub(crate) trait ByFile: Stated {
    /// The first line of the file.
    const FIRST_LINE: &'static str;
}

impl ByFile for JoinRequest {
    const FIRST_LINE: &'static str = "skep join request 1\n";
}

impl ByFile for JoinReply {
    const FIRST_LINE: &'static str = "skep join reply 1\n";
}

/// Bytes beside the statement: the first line, and seals.
const BESIDE_BYTES_MAX: usize = 4 * 1024;

/// Writes a statement. The file may be on a stick, whose file system knows neither owners nor links.
///
/// # Errors
/// [`SiteFilesError::Io`].
pub(crate) fn write<T: ByFile>(path: &Path, sealed: &Sealed<T>) -> Result<(), SiteFilesError> {
    let bytes = [T::FIRST_LINE.as_bytes(), &sealed.to_bytes()].concat();
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(SiteFilesError::io(path))
}

/// Reads a statement. Whether it holds is another question.
///
/// # Errors
/// [`SiteFilesError`] if the file cannot be read, or holds something else.
pub(crate) fn read<T: ByFile>(path: &Path) -> Result<Sealed<T>, SiteFilesError> {
    let max = (T::BYTES_MAX + BESIDE_BYTES_MAX) as u64;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(SiteFilesError::io(path))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(SiteFilesError::io(path))?;
    if bytes.len() as u64 > max {
        return Err(SiteFilesError::TooLarge { path: path.to_owned(), max });
    }
    let Some(sealed) = bytes.strip_prefix(T::FIRST_LINE.as_bytes()) else {
        return Err(SiteFilesError::NotThat { path: path.to_owned(), what: T::WHAT });
    };
    Sealed::from_bytes(&Bytes::copy_from_slice(sealed))
        .map_err(|source| SiteFilesError::Malformed { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::found::tests::{hall, key, secret};
    use skep_protocol::ids::Incarnation;

    fn request() -> Sealed<JoinRequest> {
        let request = JoinRequest {
            site: hall(2).unwrap().view.root().site(),
            invitation: key(40),
            node: key(41),
            name: None,
            incarnation: Incarnation([3; 16]),
            channel: None,
        };
        Sealed::seal(&request, &[&secret(40), &secret(41)]).unwrap()
    }

    #[test]
    fn a_request_is_read_as_it_was_written_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("request");
        let sealed = request();
        write(&path, &sealed).unwrap();
        write(&path, &sealed).unwrap();
        assert_eq!(read::<JoinRequest>(&path).unwrap(), sealed);
        assert!(read::<JoinRequest>(&path).unwrap().holds());
        assert!(matches!(read::<JoinReply>(&path), Err(SiteFilesError::NotThat { .. })));
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(!read::<JoinRequest>(&path).is_ok_and(|sealed| sealed.holds()), "cut off at {end}");
        }
        std::fs::write(&path, [&whole[..], &[0; 8 * 1024]].concat()).unwrap();
        assert!(matches!(read::<JoinRequest>(&path), Err(SiteFilesError::TooLarge { .. })));
        assert!(matches!(read::<JoinRequest>(&dir.path().join("none")), Err(SiteFilesError::Io { .. })));
    }
}
