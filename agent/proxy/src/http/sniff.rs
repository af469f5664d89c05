//! Step *sniff*: what a client speaks, from its first bytes, where its port's name does not say. They
//! are given back, so that whoever serves the connection reads it from its beginning.
//!
//! A client may well wait for the server to speak first. It is connected while its first bytes are
//! waited for (`l4.rs`), so that nobody waits for anybody.

use std::{future::poll_fn, task::ready, time::Duration};

use bytes::BytesMut;
use rustls::server::Acceptor;

use crate::duplex::Unread;

/// A ClientHello may be as long as a TLS record, and the first line of a request is shorter.
const MOST: usize = (16 << 10) + 5;
/// First byte of every TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is taken for one.
const LONGEST_METHOD: usize = 32;

/// What a connection turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// TLS, and the server name that the client asks for.
    Tls(Option<String>),
    Other,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Anything.
    ForAll,
    /// The port speaks HTTP: only the version is asked for.
    ForVersion,
}

/// Waits for the client's first bytes, as long as it takes, and for what is missing to tell what they
/// are, no longer than `patience`. May be given up at any time.
pub(crate) async fn sniff<D: Unread>(client: &mut D, look: Look, patience: Duration) -> Spoken {
    let mut first = First { client, seen: BytesMut::new() };
    let mut spoken = None;
    if first.read().await {
        let rest = tokio::time::timeout(patience, first.tell(look));
        spoken = rest.await.unwrap_or_default();
    }
    spoken.unwrap_or(if look == Look::ForVersion { Spoken::Http1 } else { Spoken::Other })
}

/// Waits for the client's first bytes, and leaves them where they are. May be given up at any time.
pub(crate) async fn speaks(client: &mut impl Unread) {
    First { client, seen: BytesMut::new() }.read().await;
}

/// What a client has said, until it is given back.
struct First<'a, D: Unread> {
    client: &'a mut D,
    seen: BytesMut,
}

impl<D: Unread> First<'_, D> {
    /// Takes more; false where there is no more. An error is met again by whoever serves the connection.
    async fn read(&mut self) -> bool {
        let room = MOST - self.seen.len();
        let read = poll_fn(|cx| {
            ready!(self.client.poll_readable(cx));
            self.client.poll_read(cx, room)
        });
        match read.await {
            Ok(Some(bytes)) => {
                self.seen.extend_from_slice(&bytes);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    async fn tell(&mut self, look: Look) -> Option<Spoken> {
        loop {
            if let Some(spoken) = classify(&self.seen, look) {
                return Some(spoken);
            }
            if self.seen.len() >= MOST || !self.read().await {
                return None;
            }
        }
    }
}

impl<D: Unread> Drop for First<'_, D> {
    fn drop(&mut self) {
        self.client.unread(std::mem::take(&mut self.seen).freeze());
    }
}

/// What these first bytes say; `None` while they do not say it yet. Pure and total: a client chooses
/// them.
pub(super) fn classify(bytes: &[u8], look: Look) -> Option<Spoken> {
    let same = bytes.iter().zip(PREFACE).take_while(|(byte, wanted)| byte == wanted).count();
    if same == PREFACE.len() {
        return Some(Spoken::Http2);
    }
    // No other method begins like this.
    if same == bytes.len() {
        return None;
    }
    match look {
        Look::ForVersion => Some(Spoken::Http1),
        Look::ForAll if bytes.first() == Some(&HANDSHAKE_RECORD) => tls(bytes),
        Look::ForAll => request_line(bytes),
    }
}

/// A first line that ends with a version of HTTP/1.
fn request_line(bytes: &[u8]) -> Option<Spoken> {
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    if method == bytes.len() && method <= LONGEST_METHOD {
        return None;
    }
    if method == 0 || method > LONGEST_METHOD || bytes[method] != b' ' {
        return Some(Spoken::Other);
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    if !line.iter().all(|byte| matches!(byte, 0x20..=0x7e | b'\r' | 0x80..)) {
        return Some(Spoken::Other);
    }
    let line = end.map(|_| line.trim_ascii_end())?;
    let http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    Some(if http { Spoken::Http1 } else { Spoken::Other })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&byte)
}

/// The server name of a ClientHello.
fn tls(bytes: &[u8]) -> Option<Spoken> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Some(Spoken::Tls(name));
            }
            Err(_) => return Some(Spoken::Other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn all(bytes: &[u8]) -> Option<Spoken> {
        classify(bytes, Look::ForAll)
    }

    #[test]
    fn http_is_told_by_its_first_line() {
        assert_eq!(all(b"GET / HTTP/1.1\r\nHost"), Some(Spoken::Http1));
        assert_eq!(all(b"M-SEARCH * HTTP/1.0\r\n"), Some(Spoken::Http1));
        assert_eq!(all(PREFACE), Some(Spoken::Http2));
        assert_eq!(classify(b"PROPFIND /", Look::ForVersion), Some(Spoken::Http1));
    }

    #[test]
    fn what_is_not_http_is_something_else() {
        for text in [
            "EHLO mail.example\r\n",
            "GET /\0 HTTP/1.1\r\n",
            "\0\0\0\x10",
            "*1\r\n$4\r\nPING\r\n",
            " GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(all(text.as_bytes()), Some(Spoken::Other), "{text:?}");
        }
        assert_eq!(all(&[b'A'; LONGEST_METHOD + 1]), Some(Spoken::Other));
    }

    #[test]
    fn a_beginning_says_nothing_yet() {
        for text in ["G", "GET", "GET /a", "GET / HTTP/1.1\r", "PRI * HTTP/2.0\r\n\r\n", ""] {
            assert_eq!(all(text.as_bytes()), None, "{text:?}");
        }
        let hello = hello("cart.example");
        assert!((1..hello.len()).all(|count| all(&hello[..count]).is_none()));
    }

    #[test]
    fn a_tls_client_says_which_server_it_wants() {
        let name = Some("cart.example".to_owned());
        assert_eq!(all(&hello("Cart.example")), Some(Spoken::Tls(name)));
        assert_eq!(all(&hello("10.0.0.1")), Some(Spoken::Tls(None)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            all(&bytes);
            classify(&bytes, Look::ForVersion);
        }
    }
}
