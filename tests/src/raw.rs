//! Requests as bytes, for tests that want them to be wrong.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{Conn, Pod, pod::protocol::Failure};

/// The whole answer to these bytes.
///
/// # Errors
/// If the connection is refused, or ends before that.
pub fn ask(pod: &Pod, to: SocketAddr, bytes: &[u8]) -> Result<String, Failure> {
    let conn = pod.connect(to)?;
    conn.send(bytes)?;
    read(&conn)
}

/// One answer with a length.
///
/// # Errors
/// If the connection ends before that.
pub fn read(conn: &Conn<'_>) -> Result<String, Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let mut answer = String::from_utf8_lossy(&head).into_owned();
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    answer.push_str(&String::from_utf8_lossy(&conn.receive(length)?));
    Ok(answer)
}

/// Status of the answer to a request of HTTP/1.1; 0 where there is none.
pub fn status(pod: &Pod, to: SocketAddr, line: &str, headers: &str) -> u16 {
    let request = format!("{line} HTTP/1.1\r\nHost: server\r\n{headers}\r\n");
    let answer = ask(pod, to, request.as_bytes()).unwrap_or_default();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// The status that HTTP/2 with prior knowledge is answered with.
///
/// # Errors
/// If the connection ends before that.
pub fn http2_status(
    client: &Pod,
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<String> {
    let conn = client.connect(to)?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // `:method: GET` and `:scheme: http` are in the static table; the others are literals.
    let mut block = vec![0x82, 0x86];
    block.extend(literal(0x04, path));
    block.extend(literal(0x01, "server"));
    for (name, value) in headers {
        block.extend([0, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    bytes.extend(frame(1, 0x5, 1, &block));
    conn.send(&bytes)?;
    loop {
        let head = conn.receive(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = conn.receive(length)?;
        if head[3] == 1 {
            // 200 has an entry of HPACK's table; others are literals in the digits of their Huffman code.
            let known: [(&[u8], _); 4] = [
                (&[0x88], "200"),
                (&[0x48, 0x83, 0x68, 0x0c, 0xff], "403"),
                (&[0x48, 0x82, 0x68, 0x01], "401"),
                (&[0x48, 0x83, 0x68, 0x4f, 0xff], "429"),
            ];
            let found = known.iter().find(|(code, _)| payload.starts_with(code));
            return Ok(found.map_or(format!("{payload:x?}"), |(_, status)| (*status).to_owned()));
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field with an indexed name that is not to be indexed.
fn literal(name: u8, value: &str) -> Vec<u8> {
    let mut field = vec![name, value.len() as u8];
    field.extend(value.bytes());
    field
}
