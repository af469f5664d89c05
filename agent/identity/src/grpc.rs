//! What gRPC puts around the one message of a call (gRPC over HTTP2, "Length-Prefixed-Message" and
//! "Status"), for the client and the server of certificates.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use prost::Message;

/// Flag and length before a message.
const PREFIX: usize = 5;
/// Longest text of a status that is sent or read.
const MAX_TEXT: usize = 1024;

/// How messages are compressed, and may be.
pub(crate) const ENCODING: &str = "grpc-encoding";
pub(crate) const ACCEPTED: &str = "grpc-accept-encoding";
pub(crate) const GZIP: &str = "gzip";
pub(crate) const STATUS: &str = "grpc-status";
pub(crate) const TEXT: &str = "grpc-message";

/// Statuses (`google/rpc/code.proto`), those of them that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// No answer in time.
    DeadlineExceeded = 4,
    /// It will never be done.
    InvalidArgument = 3,
    /// Who asks may not.
    PermissionDenied = 7,
    /// Too much at once.
    ResourceExhausted = 8,
    /// No such method.
    Unimplemented = 12,
    /// A mistake of the server's.
    Internal = 13,
    /// Another attempt may succeed.
    Unavailable = 14,
    /// Nobody knows who asks.
    Unauthenticated = 16,
}

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for all of it.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

/// The one message of a body, or what is wrong with it.
pub(crate) fn read<M: Message + Default>(body: &[u8]) -> Result<M, String> {
    let (prefix, message) =
        body.split_first_chunk::<PREFIX>().ok_or("there is no message in it")?;
    let [compressed, length @ ..] = prefix;
    if *compressed != 0 {
        return Err("it is compressed".to_owned());
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err("its length is another than it says".to_owned());
    }
    M::decode(message).map_err(|error| error.to_string())
}

/// The fields of a status. Text is percent-encoded.
pub(crate) fn status(code: Option<Code>, text: &str) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(STATUS, HeaderValue::from(code.map_or(0, |code| code as u16)));
    if !text.is_empty() {
        let mut encoded = String::new();
        for byte in text.bytes().take(MAX_TEXT) {
            match byte {
                b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
                _ => encoded.push_str(&format!("%{byte:02X}")),
            }
        }
        if let Ok(value) = HeaderValue::from_str(&encoded) {
            fields.insert(TEXT, value);
        }
    }
    fields
}

/// The status that is in the fields, and its text; `None` where there is none.
pub(crate) fn read_status(fields: &HeaderMap) -> Option<(u16, String)> {
    let code = fields.get(STATUS)?.to_str().ok()?.parse().ok()?;
    let text = fields.get(TEXT).map_or(&b""[..], HeaderValue::as_bytes);
    let mut decoded = Vec::new();
    let mut rest = &text[..text.len().min(3 * MAX_TEXT)];
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| *byte == b'%') {
            Some(escaped) => (rest, _) = (&after[2..], decoded.push(escaped)),
            None => (rest, _) = (after, decoded.push(*byte)),
        }
    }
    // For logs and terminals.
    let text = String::from_utf8_lossy(&decoded).chars().filter(|c| !c.is_control()).collect();
    Some((code, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance::message::CertificateRequestMessage as Request;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        for text in ["", "simple", "100 % \u{fc}ber\u{7}", "%41"] {
            let fields = status(Some(Code::PermissionDenied), text);
            let (code, read) = read_status(&fields).unwrap();
            assert_eq!((code, read), (7, text.replace('\u{7}', "")));
        }
        assert_eq!(read_status(&status(None, "")), Some((0, String::new())));
        assert_eq!(read_status(&HeaderMap::new()), None);
    }

    #[test]
    fn a_message_is_read_whole_or_not_at_all() {
        let message = Request { csr: "x".repeat(300), ..Request::default() };
        let bytes = framed(&message);
        assert_eq!(read::<Request>(&bytes).unwrap(), message);
        let mut compressed = bytes.to_vec();
        compressed[0] = 1;
        assert!(read::<Request>(&compressed).unwrap_err().contains("compressed"));
        for length in 0..bytes.len() {
            assert!(read::<Request>(&bytes[..length]).is_err(), "{length}");
        }
    }
}
