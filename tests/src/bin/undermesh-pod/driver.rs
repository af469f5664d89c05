//! The loop: one request a line, one answer a line.

use std::{
    io::{self, BufRead, Write, stdin, stdout},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use socket2::Protocol;
use undermesh_tests::pod::{
    errno_name,
    protocol::{Accepted, Answer, Datagram, Failure, Opened, Request},
};

use crate::{
    ask, burst, http, load, serve,
    sockets::{self, Sockets},
};

/// Serves requests until standard input ends.
pub(crate) fn run() -> Result<()> {
    let mut sockets = Sockets::default();
    for line in stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = match carry_out(&mut sockets, &request) {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Err(Failure {
                errno: errno_name(&error),
                context: describe(&request, &error),
            }),
        };
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// The request without its data, and the error in its own words.
fn describe(request: &Request, error: &io::Error) -> String {
    let request: String = format!("{request:?}").chars().take(160).collect();
    format!("{request}: {error}")
}

fn carry_out(sockets: &mut Sockets, request: &Request) -> io::Result<Value> {
    match request {
        Request::Ping => value(()),
        Request::Listen { at, behaviour, mptcp } => {
            let protocol = if *mptcp { Protocol::MPTCP } else { Protocol::TCP };
            let listener = serve::listen(*at, behaviour, protocol)?;
            let address = listener.address;
            let id = sockets.add_listener(listener);
            value(Opened { id, address })
        }
        Request::ListenMany { first, count, behaviour } => {
            value(serve::listen_many(sockets, *first, *count, behaviour)?)
        }
        Request::Accept { id, timeout } => {
            let (stream, peer) = sockets.listener(*id)?.accept(span(*timeout))?;
            let local = stream.local_addr()?;
            let id = sockets.add_stream(stream);
            value(Accepted { id, peer, local })
        }
        Request::ListAccepted { id } => value(sockets.listener(*id)?.accepted()),
        Request::Connect { to, options } => {
            let stream = sockets::connect(*to, options)?;
            let address = stream.local_addr()?;
            let id = sockets.add_stream(stream);
            value(Opened { id, address })
        }
        Request::UdpBind { at } => {
            let (id, address) = sockets.bind_udp(*at)?;
            value(Opened { id, address })
        }
        Request::UdpSend { id, to, data } => {
            sockets.udp(*id)?.send_to(data, to)?;
            value(())
        }
        Request::UdpReceive { id, timeout } => {
            let socket = sockets.udp(*id)?;
            socket.set_read_timeout(Some(span(*timeout)))?;
            let mut data = vec![0; 1 << 16];
            let (length, from) = socket.recv_from(&mut data)?;
            data.truncate(length);
            value(Datagram { from, data })
        }
        Request::Close { id } => value(sockets.close(*id)?),
        Request::Burst(plan) => value(burst::run(plan)),
        Request::Ask(ask) => value(ask::run(ask)),
        Request::Heard { mark } => value(http::heard(mark)),
        Request::Release { mark } => {
            http::release(mark);
            value(())
        }
        Request::BeginLoad(load) => value(load::begin(load)?),
        Request::LoadSoFar => value(load::so_far()?),
        Request::EndLoad => value(load::end()?),
        on_stream => carry_out_on_stream(sockets, on_stream),
    }
}

fn carry_out_on_stream(sockets: &mut Sockets, request: &Request) -> io::Result<Value> {
    match request {
        Request::Send { id, data } => {
            let mut stream = sockets.stream(*id)?;
            stream.set_write_timeout(Some(sockets::PATIENCE))?;
            value(stream.write_all(data)?)
        }
        Request::SendPattern { id, from, length, timeout } => {
            value(sockets::send_pattern(sockets.stream(*id)?, *from, *length, span(*timeout))?)
        }
        Request::Receive { id, length, timeout } => {
            value(sockets::receive(sockets.stream(*id)?, *length, span(*timeout))?)
        }
        Request::ReceiveToEnd { id, limit, timeout } => {
            value(sockets::receive_to_end(sockets.stream(*id)?, *limit, span(*timeout))?)
        }
        Request::ReceivePattern { id, from, length, timeout } => {
            value(sockets::receive_pattern(sockets.stream(*id)?, *from, *length, span(*timeout))?)
        }
        Request::ShutdownWrite { id } => {
            value(sockets.stream(*id)?.shutdown(std::net::Shutdown::Write)?)
        }
        Request::Reset { id } => value(sockets.reset(*id)?),
        Request::PeerName { id } => value(sockets.stream(*id)?.peer_addr()?),
        Request::SocketName { id } => value(sockets.stream(*id)?.local_addr()?),
        _ => Err(io::Error::other("a request that nobody carries out")),
    }
}

fn value(value: impl Serialize) -> io::Result<Value> {
    Ok(serde_json::to_value(value)?)
}

fn span(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
