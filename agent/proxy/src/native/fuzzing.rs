//! What a peer of the native wire sends, for `tests/fuzz`.

use bytes::BytesMut;

use super::{decoder::Decoder, frame::Control};

/// What was read before the end of the bytes, or before the first mistake in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// All payload of DATA frames.
    pub data: Vec<u8>,
    /// Every other frame that was not passed over: what it says, and how this agent would write it.
    pub controls: Vec<(String, Vec<u8>)>,
    /// The mistake.
    pub error: Option<&'static str>,
    /// The bytes end between two frames.
    pub between_frames: bool,
    /// Bytes that were taken.
    pub consumed: usize,
}

/// Reads `bytes` as a peer's, in pieces of these lengths, holding at most `limit` bytes of data.
pub fn read(bytes: &[u8], mut piece: impl FnMut() -> usize, limit: usize) -> Read {
    let mut decoder = Decoder::default();
    let mut read = Read::default();
    let mut there = 0;
    while there < bytes.len() {
        there = bytes.len().min(there.saturating_add(piece().max(1)));
        while read.consumed < there {
            let mut data = BytesMut::new();
            let decoded = match decoder.decode(&bytes[read.consumed..there], &mut data, limit) {
                Ok(decoded) => decoded,
                Err(error) => {
                    read.data.extend_from_slice(&data);
                    read.error = Some(error.code());
                    return read;
                }
            };
            assert!(data.len() <= limit, "{} bytes of data, at most {limit}", data.len());
            assert!(decoded.consumed > 0, "nothing was taken");
            read.data.extend_from_slice(&data);
            read.consumed += decoded.consumed;
            read.controls.extend(decoded.control.as_ref().map(described));
        }
    }
    read.between_frames = decoder.is_between_frames();
    read
}

fn described(control: &Control) -> (String, Vec<u8>) {
    (format!("{control:?}"), control.encode().to_vec())
}
