//! The sockets that a test holds, and what can be done with a connection.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use undermesh_tests::pod::protocol::{ConnectOptions, SocketId, pattern};

use crate::serve::Listening;

/// How long a call may wait where nothing else is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Stretch of the pattern that is sent or read at once.
const CHUNK: u64 = 1 << 16;

/// Sockets by number.
#[derive(Default)]
pub(crate) struct Sockets {
    last: SocketId,
    listeners: HashMap<SocketId, Listening>,
    streams: HashMap<SocketId, TcpStream>,
    datagrams: HashMap<SocketId, UdpSocket>,
}

impl Sockets {
    fn next(&mut self) -> SocketId {
        self.last += 1;
        self.last
    }

    pub(crate) fn add_listener(&mut self, listener: Listening) -> SocketId {
        let id = self.next();
        self.listeners.insert(id, listener);
        id
    }

    pub(crate) fn add_stream(&mut self, stream: TcpStream) -> SocketId {
        let id = self.next();
        self.streams.insert(id, stream);
        id
    }

    pub(crate) fn bind_udp(&mut self, at: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        let socket = UdpSocket::bind(at)?;
        let address = socket.local_addr()?;
        let id = self.next();
        self.datagrams.insert(id, socket);
        Ok((id, address))
    }

    pub(crate) fn listener(&self, id: SocketId) -> io::Result<&Listening> {
        self.listeners.get(&id).ok_or_else(unknown)
    }

    pub(crate) fn stream(&self, id: SocketId) -> io::Result<&TcpStream> {
        self.streams.get(&id).ok_or_else(unknown)
    }

    pub(crate) fn udp(&self, id: SocketId) -> io::Result<&UdpSocket> {
        self.datagrams.get(&id).ok_or_else(unknown)
    }

    pub(crate) fn close(&mut self, id: SocketId) -> io::Result<()> {
        let stream = self.streams.remove(&id).is_some();
        let datagram = self.datagrams.remove(&id).is_some();
        match self.listeners.remove(&id) {
            Some(listener) => listener.stop(),
            None if stream || datagram => Ok(()),
            None => Err(unknown()),
        }
    }

    /// With `SO_LINGER` 0, closing sends a reset.
    pub(crate) fn reset(&mut self, id: SocketId) -> io::Result<()> {
        let stream = self.streams.remove(&id).ok_or_else(unknown)?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    }
}

fn unknown() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "no socket has this number")
}

/// Opens a connection with options set before.
pub(crate) fn connect(to: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let to = match to.ip() {
        IpAddr::V4(v4) if options.v4_mapped => {
            SocketAddrV6::new(v4.to_ipv6_mapped(), to.port(), 0, 0).into()
        }
        _ => to,
    };
    let protocol = if options.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), Some(protocol))?;
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    if let Some(address) = options.bind {
        socket.bind(&address.into())?;
    }
    let timeout = options.timeout.map_or(PATIENCE, Duration::from_millis);
    socket.connect_timeout(&to.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Sends the pattern until done, or until a write has waited too long; returns what was sent.
pub(crate) fn send_pattern(
    mut stream: &TcpStream,
    from: u64,
    length: u64,
    patience: Duration,
) -> io::Result<u64> {
    stream.set_write_timeout(Some(patience))?;
    let mut sent = 0;
    while sent < length {
        let chunk = pattern(from + sent, (length - sent).min(CHUNK) as usize);
        match stream.write(&chunk) {
            Ok(written) => sent += written as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// Receives exactly `length` bytes.
pub(crate) fn receive(
    mut stream: &TcpStream,
    length: usize,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    let mut data = vec![0; length];
    stream.read_exact(&mut data)?;
    Ok(data)
}

/// Receives until the peer closes its side.
pub(crate) fn receive_to_end(
    stream: &TcpStream,
    limit: usize,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(patience))?;
    let mut data = Vec::new();
    stream.take(limit as u64 + 1).read_to_end(&mut data)?;
    if data.len() > limit {
        return Err(io::Error::other("the stream is longer than the limit"));
    }
    Ok(data)
}

/// Receives `length` bytes and compares them with the pattern.
pub(crate) fn receive_pattern(
    mut stream: &TcpStream,
    from: u64,
    length: u64,
    patience: Duration,
) -> io::Result<bool> {
    stream.set_read_timeout(Some(patience))?;
    let mut intact = true;
    let mut received = 0;
    let mut data = vec![0; CHUNK as usize];
    while received < length {
        let chunk = &mut data[..(length - received).min(CHUNK) as usize];
        stream.read_exact(chunk)?;
        intact &= *chunk == pattern(from + received, chunk.len())[..];
        received += chunk.len() as u64;
    }
    Ok(intact)
}
