//! Messages of gRPC in a stream of bytes, and compression (gzip, RFC 1952).
//!
//! A compressed message is a sequence of gzip members, which is what gzip files may be: what many agents are sent is compressed
//! once, and stands in the messages of all of them. Messages of protobuf are the sequence of their parts likewise.

use std::io::{Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use prost::Message;

/// Flag and length before a message.
const PREFIX: usize = 5;
/// Largest message as it is sent, in bytes.
const MAX_SENT: usize = 32 << 20;
/// Largest message once it has been decompressed.
const MAX_MESSAGE: usize = 64 << 20;
/// Shorter messages are not compressed: gzip adds 18 bytes.
const WORTH: usize = 128;

/// What is the same for all who get it, compressed.
pub(super) fn member(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::default());
    // Memory takes all of it.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}

/// The bytes before members that are one message together.
pub(super) fn prefix(members: &[Bytes]) -> Bytes {
    let length: usize = members.iter().map(Bytes::len).sum();
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(1);
    prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    prefix.freeze()
}

/// A message with what stands before it.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let plain = message.encode_to_vec();
    let (flag, content) = if plain.len() < WORTH { (0, plain.into()) } else { (1, member(&plain)) };
    let mut framed = BytesMut::with_capacity(PREFIX + content.len());
    framed.put_u8(flag);
    framed.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    framed.put(content);
    framed.freeze()
}

/// Puts messages together of bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    ///
    /// # Errors
    /// Where what has come cannot be one; nothing that comes after it can be read.
    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, String> {
        let Some((&[flag, ref length @ ..], _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_SENT {
            return Err(format!("a message of {length} bytes is larger than {MAX_SENT}"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let content = self.buffer.split_to(length).freeze();
        let message = match flag {
            0 => content,
            1 => decompressed(&content)?,
            other => {
                return Err(format!(
                    "a message is compressed in a way that is not known ({other})"
                ));
            }
        };
        M::decode(message).map(Some).map_err(|error| error.to_string())
    }
}

fn decompressed(bytes: &[u8]) -> Result<Bytes, String> {
    let mut plain = Vec::new();
    let mut limited = MultiGzDecoder::new(bytes).take(MAX_MESSAGE as u64 + 1);
    limited.read_to_end(&mut plain).map_err(|error| format!("a message is no gzip: {error}"))?;
    if plain.len() > MAX_MESSAGE {
        return Err(format!("a message is larger than {MAX_MESSAGE} bytes"));
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

    fn response(names: std::ops::Range<usize>) -> DeltaDiscoveryResponse {
        let removed_resources = names.map(|number| format!("Pod/shop/pod-{number}")).collect();
        DeltaDiscoveryResponse { removed_resources, ..Default::default() }
    }

    #[test]
    fn members_that_were_compressed_apart_are_one_message() {
        let head = DeltaDiscoveryResponse { nonce: "7".to_owned(), ..Default::default() };
        let members: Vec<Bytes> = [head, response(0..100), response(100..200)]
            .iter()
            .map(|part| member(&part.encode_to_vec()))
            .collect();
        let mut bytes = prefix(&members).to_vec();
        members.iter().for_each(|member| bytes.extend_from_slice(member));
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(7) {
            frames.push(&Bytes::copy_from_slice(piece));
            found.extend(frames.next::<DeltaDiscoveryResponse>().unwrap());
        }
        let expected = DeltaDiscoveryResponse { nonce: "7".to_owned(), ..response(0..200) };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn messages_are_read_as_they_were_written_whether_or_not_they_are_worth_compressing() {
        let mut frames = Frames::default();
        let short = DeltaDiscoveryRequest { response_nonce: "1".to_owned(), ..Default::default() };
        let long = DeltaDiscoveryRequest {
            initial_resource_versions: (0..99).map(|n| (n.to_string(), "v".to_owned())).collect(),
            ..Default::default()
        };
        frames.push(&framed(&short));
        frames.push(&framed(&long));
        assert!(framed(&long).len() < long.encoded_len());
        assert_eq!(frames.next().unwrap(), Some(short));
        assert_eq!(frames.next().unwrap(), Some(long));
        assert_eq!(frames.next::<DeltaDiscoveryRequest>().unwrap(), None);
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_takes_memory() {
        let bomb: Vec<u8> = member(&vec![0; MAX_MESSAGE + 1]).to_vec();
        for (flag, length, content, part) in [
            (0, u32::MAX, &b""[..], "larger than"),
            (1, 4, b"nope", "no gzip"),
            (2, 0, b"", "not known"),
            (0, 1, b"\x08", "invalid"),
            (1, bomb.len() as u32, &bomb, "larger than"),
        ] {
            let mut frames = Frames::default();
            let mut bytes = vec![flag];
            bytes.extend(length.to_be_bytes());
            bytes.extend_from_slice(content);
            frames.push(&bytes.into());
            let refused = frames.next::<DeltaDiscoveryRequest>().unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
