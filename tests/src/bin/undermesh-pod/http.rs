//! A small HTTP/1.1 server that answers with what it was asked.
//!
//! `/status/503` is answered with that status, `/delay/200` after so many milliseconds; the body is the
//! head of the request as it arrived, and the header `x-pod` says who answers.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

/// Longest head that is read.
const LONGEST_HEAD: u64 = 64 << 10;

/// Serves requests until the client leaves.
pub(crate) fn serve(stream: &TcpStream, name: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader)? {
        let length = header(&head, "content-length").and_then(|text| text.parse().ok());
        io::copy(&mut (&mut reader).take(length.unwrap_or(0)), &mut io::sink())?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let of = |prefix: &str| path.strip_prefix(prefix)?.split(['?', '/']).next()?.parse().ok();
        thread::sleep(Duration::from_millis(of("/delay/").unwrap_or(0)));
        let status = of("/status/").unwrap_or(200);
        let answer = format!(
            "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nx-pod: {name}\r\n\r\n{head}",
            head.len()
        );
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
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

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .next()
}
