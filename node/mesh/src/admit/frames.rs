//! Frames on the stream of admission: the length in four bytes, and then as many bytes.

use std::io;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Sends a frame. It may wait in a buffer until the stream is flushed.
pub(crate) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await
}

/// Reads the next frame, of at most `max` bytes. Memory grows with the bytes that came, and not with the announced
/// length.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S, max: usize) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length);
    let is_allowed = usize::try_from(length).is_ok_and(|length| length <= max);
    if !is_allowed {
        let why = format!("a frame of {length} bytes; at most {max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = Vec::new();
    let came = stream.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if u32::try_from(came) == Ok(length) { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn what_is_sent_in_a_frame_comes_out_of_it_and_a_larger_one_than_allowed_does_not() {
        let mut sent = Cursor::new(Vec::new());
        for text in [&b"hello"[..], b"", b"again"] {
            write(&mut sent, text).await.unwrap();
        }
        let bytes = sent.into_inner();
        let mut came = Cursor::new(bytes.clone());
        assert_eq!(read(&mut came, 5).await.unwrap(), "hello");
        assert_eq!(read(&mut came, 0).await.unwrap(), "");
        assert_eq!(read(&mut came, 4).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        for cut in [0, 3, 4, 8] {
            let mut came = Cursor::new(bytes[..cut].to_vec());
            assert_eq!(read(&mut came, 5).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
    }
}
