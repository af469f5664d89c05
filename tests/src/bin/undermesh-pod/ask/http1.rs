//! The client of HTTP/1.1, by hand.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use undermesh_tests::pod::http::{Ask, Reply};

pub(super) fn ask(ask: &Ask, stream: &TcpStream, reply: &mut Reply) -> io::Result<()> {
    exchange(ask, stream, &mut BufReader::new(stream), reply)
}

/// One of several requests over a connection.
pub(crate) fn exchange(
    ask: &Ask,
    stream: &TcpStream,
    reader: &mut impl BufRead,
    reply: &mut Reply,
) -> io::Result<()> {
    send(ask, stream, &ask.body)?;
    read_head(reader, reply)?;
    let bare = ask.method == "HEAD" || matches!(reply.status, 101 | 204 | 304);
    if !bare {
        read_body(reader, reply)?;
    }
    Ok(())
}

/// Asks for a WebSocket; what the body says comes back through it.
pub(super) fn switch(ask: &Ask, mut stream: &TcpStream, reply: &mut Reply) -> io::Result<()> {
    send(ask, stream, b"")?;
    let mut reader = BufReader::new(stream);
    read_head(&mut reader, reply)?;
    if reply.status != 101 {
        return read_body(&mut reader, reply);
    }
    stream.write_all(&ask.body)?;
    let mut echo = vec![0; ask.body.len()];
    reader.read_exact(&mut echo)?;
    reply.body = String::from_utf8_lossy(&echo).into_owned();
    Ok(())
}

fn send(ask: &Ask, mut stream: &TcpStream, body: &[u8]) -> io::Result<()> {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", ask.method, ask.path, ask.authority);
    for (name, value) in &ask.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), body].concat())
}

fn read_head(reader: &mut impl BufRead, reply: &mut Reply) -> io::Result<()> {
    let status = line(reader)?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    reply.status = code.ok_or_else(|| io::Error::other(format!("no status in {status:?}")))?;
    reply.headers = fields(reader)?;
    Ok(())
}

/// Up to the empty line.
fn fields(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, reply: &mut Reply) -> io::Result<()> {
    let mut body = Vec::new();
    let length = reply.header("content-length").and_then(|length| length.parse().ok());
    if reply.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                reply.trailers = fields(reader)?;
                break;
            }
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk)?;
            body.extend(chunk);
            line(reader)?;
        }
    } else if let Some(length) = length {
        body = vec![0; length];
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    reply.body = String::from_utf8_lossy(&body).into_owned();
    Ok(())
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
