//! A client for the agent's own admin interface: one request, one answer, over loopback.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest dump that is read.
const MAX_ANSWER: u64 = 256 << 20;

/// Fetches `path`; anything but 200 is an error with the answer's own words.
pub(crate) fn get(admin: SocketAddr, path: &str) -> Result<String> {
    get_within(admin, path, TIMEOUT)
}

/// The same, with another limit on every wait.
pub(crate) fn get_within(admin: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    ask("GET", admin, path, limit)
}

/// Asks for something to be done.
pub(crate) fn post(admin: SocketAddr, path: &str) -> Result<String> {
    ask("POST", admin, path, TIMEOUT)
}

fn ask(method: &str, admin: SocketAddr, path: &str, limit: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, limit).with_context(|| {
        format!(
            "no agent answers at {admin}; is it running, and in this network namespace? \
             (`ip netns exec NODE undermesh ...`, or --admin ADDRESS)"
        )
    })?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {admin}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    match parts(&answer) {
        Some(("200", body)) => Ok(body.to_owned()),
        Some((code, body)) => bail!("{admin}{path} answered {code}: {}", body.trim()),
        None => bail!("{admin} does not speak HTTP"),
    }
}

/// Status code and body of an answer of HTTP/1.0, which ends with its connection and comes in one piece.
pub(crate) fn parts(answer: &str) -> Option<(&str, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?, body))
}
