//! The server of HTTP/1.1, by hand: nothing between it and the bytes may mend them.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use socket2::SockRef;

use super::{HOLD, Served, header, is_held, plan::Plan, remember};

/// Longest head that is read.
const LONGEST_HEAD: u64 = 64 << 10;

pub(super) fn serve(stream: &TcpStream, served: &Served) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        remember(&head);
        read_body(&mut reader, &head)?;
        let plan = Plan::of(&head, &served.name);
        thread::sleep(plan.wait);
        while plan.hold && is_held(&head) {
            thread::sleep(HOLD);
        }
        if plan.reset {
            return SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        if header(&head, "upgrade").is_some() && plan.status == 200 {
            return switch(&mut reader, stream, &served.name, &head);
        }
        let body = if head.starts_with("HEAD ") { "" } else { &head };
        let answer = format!("{}{body}", answer_head(&plan, served, head.len()));
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}

fn answer_head(plan: &Plan, served: &Served, length: usize) -> String {
    let mut head = format!("HTTP/1.1 {} -\r\ncontent-length: {length}\r\n", plan.status);
    for (name, value) in served.headers() {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(status) = plan.grpc {
        let _ = write!(head, "grpc-status: {status}\r\n");
    }
    for (name, value) in &plan.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head
}

/// From here on, the connection sends back what it receives; the head of the request goes first.
fn switch(
    reader: &mut impl BufRead,
    mut stream: &TcpStream,
    name: &str,
    head: &str,
) -> io::Result<()> {
    let upgrade = header(head, "upgrade").unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 -\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\nx-pod: {name}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes())?;
    loop {
        let waiting = reader.fill_buf()?;
        let length = waiting.len();
        if length == 0 {
            return Ok(());
        }
        stream.write_all(waiting)?;
        reader.consume(length);
    }
}

/// Up to the empty line; `None` where the client has left.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    let mut reader = reader.take(LONGEST_HEAD);
    loop {
        let length = reader.read_line(&mut head)?;
        if length == 0 {
            return Ok(None);
        }
        if head.ends_with("\r\n\r\n") {
            return Ok(Some(head));
        }
    }
}

fn read_body(reader: &mut impl BufRead, head: &str) -> io::Result<()> {
    let chunked = header(head, "transfer-encoding").is_some();
    let length = header(head, "content-length").and_then(|text| text.parse().ok());
    if !chunked {
        io::copy(&mut reader.take(length.unwrap_or(0)), &mut io::sink())?;
        return Ok(());
    }
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        // With the line end behind it.
        io::copy(&mut reader.take(size + 2), &mut io::sink())?;
        if size == 0 {
            return Ok(());
        }
    }
}
