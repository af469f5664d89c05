//! One HTTP request inside a node, answer and all.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::netns::Netns;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: u64 = 64 << 20;

/// Status and body of `GET http://127.0.0.1:<port><path>` inside `netns`.
pub(crate) fn get(netns: &Netns, port: u16, path: &str) -> Result<(u16, String)> {
    netns
        .run(|| request(port, path))?
        .with_context(|| format!("GET http://127.0.0.1:{port}{path} in {}", netns.name()))
}

fn request(port: u16, path: &str) -> Result<(u16, String)> {
    get_from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path)
}

/// Status and body of `GET http://<address><path>`.
pub(crate) fn get_from(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.context("no status code")?, body.to_owned()))
}
