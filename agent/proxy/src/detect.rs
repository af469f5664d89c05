//! Step *detect*: what a captured connection speaks, from the first bytes that its client sends. They
//! are looked at and left in the socket, so that whoever serves the connection reads it from its
//! beginning.

use std::{io, time::Duration};

use rustls::server::Acceptor;
use tokio::{net::TcpStream, time::Instant};
use undermesh_identity::NATIVE_ALPN;

/// A ClientHello may be as long as a TLS record, and that is enough.
const LONGEST_HELLO: usize = (16 << 10) + 5;
/// First byte of every TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// Pause before the rest of a hello that has arrived in part is looked for.
const REST: Duration = Duration::from_millis(2);

/// What a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// The native wire: a ClientHello that offers it.
    Native,
    /// Anything else, the application's own TLS included; also a client that waits for the server
    /// to speak.
    Plaintext,
    /// The client has left.
    Gone,
}

/// Waits for the client's first bytes, no longer than `patience`: what has not spoken by then is no
/// agent.
pub(crate) async fn detect(stream: &TcpStream, patience: Duration) -> Detected {
    match tokio::time::timeout_at(Instant::now() + patience, look(stream)).await {
        Ok(Ok(detected)) => detected,
        Ok(Err(_)) => Detected::Gone,
        Err(_) => Detected::Plaintext,
    }
}

async fn look(stream: &TcpStream) -> io::Result<Detected> {
    let mut buffer = [0; 512];
    let mut seen = stream.peek(&mut buffer).await?;
    match classify(&buffer[..seen], buffer.len()) {
        Some(detected) => return Ok(detected),
        None if seen < buffer.len() => {}
        None => seen = 0,
    }
    // Rare: a hello of several packets, or a long one.
    let mut buffer = vec![0; LONGEST_HELLO];
    loop {
        let count = stream.peek(&mut buffer).await?;
        if count > seen
            && let Some(detected) = classify(&buffer[..count], LONGEST_HELLO)
        {
            return Ok(detected);
        }
        if count == LONGEST_HELLO {
            return Ok(Detected::Plaintext);
        }
        // Peeking is ready at once while nothing is read; more bytes take their time.
        seen = count;
        tokio::time::sleep(REST).await;
    }
}

/// What these first bytes say; `None` while they do not say it yet. Pure and total: a peer chooses
/// them.
fn classify(bytes: &[u8], room: usize) -> Option<Detected> {
    match bytes.first() {
        // An orderly end before the first byte: applications decide what that means.
        None => return Some(Detected::Plaintext),
        Some(&HANDSHAKE_RECORD) => {}
        Some(_) => return Some(Detected::Plaintext),
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return Some(Detected::Plaintext),
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let mut offered = accepted.client_hello().alpn().into_iter().flatten();
                let native = offered.any(|protocol| protocol == NATIVE_ALPN);
                return Some(if native { Detected::Native } else { Detected::Plaintext });
            }
            Err(_) => return Some(Detected::Plaintext),
        }
    }
    (bytes.len() >= LONGEST_HELLO && room >= LONGEST_HELLO).then_some(Detected::Plaintext)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let name = "pod".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn whole(bytes: &[u8]) -> Option<Detected> {
        classify(bytes, LONGEST_HELLO)
    }

    #[test]
    fn only_a_hello_that_offers_the_native_wire_is_one() {
        assert_eq!(whole(&hello(&[b"h2", NATIVE_ALPN])), Some(Detected::Native));
        assert_eq!(whole(&hello(&[b"h2"])), Some(Detected::Plaintext));
        assert_eq!(whole(&hello(&[])), Some(Detected::Plaintext));
        assert_eq!(whole(b"GET / HTTP/1.1\r\n"), Some(Detected::Plaintext));
        assert_eq!(whole(b""), Some(Detected::Plaintext));
    }

    #[test]
    fn part_of_a_hello_says_nothing_yet() {
        let bytes = hello(&[NATIVE_ALPN]);
        for count in 1..bytes.len() {
            assert_eq!(whole(&bytes[..count]), None, "{count} bytes");
        }
    }

    #[test]
    fn what_only_begins_like_a_hello_is_plaintext() {
        assert_eq!(whole(&[22, 3, 3, 0, 4, 9, 9, 9, 9]), Some(Detected::Plaintext));
        let endless = [&[22, 3, 3, 0x40, 0][..], &[1; LONGEST_HELLO]].concat();
        assert_eq!(whole(&endless[..LONGEST_HELLO]), Some(Detected::Plaintext));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            whole(&bytes);
        }

        #[test]
        fn damaged_hellos_never_panic(at in 0usize..200, to in any::<u8>()) {
            let mut bytes = hello(&[NATIVE_ALPN]);
            let at = at % bytes.len();
            bytes[at] = to;
            whole(&bytes);
        }
    }

    async fn detected(parts: &[&[u8]], patience: Duration) -> Detected {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let send = async {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::time::sleep(REST * 2).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            detected = detect(&server, patience) => detected,
            () = send => unreachable!(),
        }
    }

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_hello_in_several_packets_is_recognised() {
        let bytes = hello(&[NATIVE_ALPN]);
        let (first, rest) = bytes.split_at(7);
        let (second, third) = rest.split_at(90);
        assert_eq!(detected(&[first, second, third], SOON).await, Detected::Native);
    }

    #[tokio::test]
    async fn a_hello_longer_than_the_first_look_is_recognised() {
        let many: Vec<Vec<u8>> =
            (0..60u8).map(|n| [b"protocol-".as_slice(), &[n]].concat()).collect();
        let mut protocols: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        protocols.push(NATIVE_ALPN);
        let bytes = hello(&protocols);
        assert!(bytes.len() > 512);
        assert_eq!(detected(&[&bytes], SOON).await, Detected::Native);
    }

    #[tokio::test]
    async fn a_client_that_waits_for_the_server_is_plaintext_after_a_while() {
        assert_eq!(detected(&[], Duration::from_millis(20)).await, Detected::Plaintext);
    }
}
