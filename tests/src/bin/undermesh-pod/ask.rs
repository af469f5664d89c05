//! Requests, made and answered.

pub(crate) mod http1;
pub(crate) mod http2;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Instant,
};

use undermesh_tests::pod::{
    http::{Ask, Reply, Speaks},
    protocol::ConnectOptions,
};

use crate::sockets::{PATIENCE, connect};

/// Makes the request as often as it says.
pub(crate) fn run(ask: &Ask) -> Vec<Reply> {
    let times = ask.times.max(1);
    if ask.at_once {
        return thread::scope(|scope| {
            let asked: Vec<_> =
                (0..times).map(|nth| scope.spawn(move || once(&numbered(ask, nth)))).collect();
            // What has panicked is missing among the replies.
            asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
        });
    }
    let mut jar = BTreeMap::new();
    let mut replies = Vec::new();
    for nth in 0..times {
        let mut ask = numbered(ask, nth);
        if ask.cookies && !jar.is_empty() {
            let pairs = jar.iter().map(|(name, value)| format!("{name}={value}"));
            ask.headers.insert("cookie".to_owned(), pairs.collect::<Vec<_>>().join("; "));
        }
        let reply = once(&ask);
        for (_, line) in reply.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let pair = line.split(';').next().and_then(|pair| pair.split_once('='));
            jar.extend(pair.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        replies.push(reply);
    }
    replies
}

/// The request, with its number put in.
fn numbered(ask: &Ask, nth: u32) -> Ask {
    let put_in = |text: &String| text.replace("$n", &nth.to_string());
    let headers = ask.headers.iter().map(|(name, value)| (name.clone(), put_in(value)));
    Ask { path: put_in(&ask.path), headers: headers.collect(), ..ask.clone() }
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
