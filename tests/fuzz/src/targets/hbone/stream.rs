//! The same in frames of HTTP/2, behind the library that reads them.

use http::{Method, Request, header::FORWARDED};
use undermesh_proxy::fuzzing::{connect_client, connect_destination, parse_authority};

use crate::{
    poll::{self, Wire},
    source::Pieces,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A CONNECT to `text`, perhaps in more frames than one, and then `text` as if it were frames itself.
pub(super) fn is_read_as_written(text: &[u8], pieces: Pieces, mode: u8) {
    let mut block = Vec::new();
    literal(&mut block, b":method", b"CONNECT");
    literal(&mut block, b":authority", text);
    literal(&mut block, b"forwarded", text);
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    let cut = usize::from(mode) * block.len() / 128;
    if mode & 1 == 0 {
        frame(&mut bytes, HEADERS, END_STREAM | END_HEADERS, 1, &block);
    } else {
        frame(&mut bytes, HEADERS, END_STREAM, 1, &block[..cut]);
        frame(&mut bytes, CONTINUATION, END_HEADERS, 1, &block[cut..]);
    }
    bytes.extend_from_slice(text);
    for request in accepted(&bytes, pieces) {
        let led = connect_destination(&request);
        if let Some(destination) = led {
            assert_eq!(request.method(), Method::CONNECT);
            let written = str::from_utf8(text).ok().and_then(parse_authority);
            assert_eq!(Some(destination), written, "{}", request.uri());
        }
        let peer = ([10, 0, 0, 1], 4711).into();
        let client = connect_client(request.headers(), peer);
        assert_eq!(client.ip(), peer.ip());
        assert!(request.headers().contains_key(FORWARDED) || client == peer);
    }
}

/// The requests that are given out.
fn accepted(bytes: &[u8], pieces: Pieces) -> Vec<Request<()>> {
    let mut requests = Vec::new();
    let wire = Wire::endless(bytes, pieces);
    let reading = async {
        let Ok(mut connection) = h2::server::handshake(wire).await else { return };
        while let Some(Ok((request, _))) = connection.accept().await {
            requests.push(request.map(drop));
        }
    };
    // It waits for the peer to go on, which never comes.
    let _ = poll::run(reading);
    requests
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A field that is in no table (RFC 7541, section 6.2.2).
fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0);
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            out.push(u8::try_from(length).unwrap_or_default());
        } else {
            out.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                out.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
                rest /= 128;
            }
            out.push(u8::try_from(rest).unwrap_or_default());
        }
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_that_is_written_here_is_given_out() {
        let mut block = Vec::new();
        literal(&mut block, b":method", b"CONNECT");
        literal(&mut block, b":authority", b"10.0.1.1:80");
        let mut bytes = PREFACE.to_vec();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, HEADERS, END_STREAM | END_HEADERS, 1, &block);
        let requests = accepted(&bytes, Pieces::new(1));
        assert_eq!(requests.len(), 1);
        assert_eq!(connect_destination(&requests[0]), parse_authority("10.0.1.1:80"));
    }
}
