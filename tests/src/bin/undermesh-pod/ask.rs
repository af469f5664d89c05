//! Requests, made and answered.

mod http1;
mod http2;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use undermesh_tests::pod::{
    http::{Ask, Reply, Speaks},
    protocol::ConnectOptions,
};

use crate::sockets::{PATIENCE, connect};

/// Makes the request as often as it says.
pub(crate) fn run(ask: &Ask) -> Vec<Reply> {
    (0..ask.times.max(1)).map(|_| once(ask)).collect()
}

fn once(ask: &Ask) -> Reply {
    let began = Instant::now();
    let mut reply = Reply::default();
    let asked = match ask.to {
        Some(to) => exchange(ask, to, &mut reply),
        None => Err(io::Error::other("nobody to ask")),
    };
    reply.error = asked.err().map(|error| error.to_string());
    reply.took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    reply
}

/// What has come is in `reply`, whether or not it is complete.
fn exchange(ask: &Ask, to: SocketAddr, reply: &mut Reply) -> io::Result<()> {
    let stream = connect(to, &ConnectOptions::default())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    match ask.speaks {
        Speaks::Http1 => http1::ask(ask, &stream, reply),
        Speaks::WebSocket => http1::switch(ask, &stream, reply),
        Speaks::Http2 | Speaks::Grpc => http2::ask(ask, stream, reply),
        Speaks::Tcp => line(ask, &stream, reply),
    }
}

/// Sends the body and reads up to the end of a line or of the connection.
fn line(ask: &Ask, mut stream: &TcpStream, reply: &mut Reply) -> io::Result<()> {
    stream.write_all(&ask.body)?;
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        bytes.extend(byte);
    }
    reply.body = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
