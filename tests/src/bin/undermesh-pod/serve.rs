//! Listening sockets that serve by themselves.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use undermesh_tests::pod::protocol::{Accepted, Behaviour};

use crate::{http, sockets::Sockets};

const BACKLOG: i32 = 4096;
/// Connections that are remembered; the rest is only served.
const REMEMBERED: usize = 10_000;
/// Small, since a pod may listen at thousands of ports.
const STACK: usize = 64 << 10;
/// For what keeps state of its own, as HTTP/2 does.
const LARGE_STACK: usize = 1 << 20;
const STEP: Duration = Duration::from_millis(2);

/// A listening socket and what it has accepted.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    socket: Arc<TcpListener>,
    accepted: Arc<Mutex<Vec<Accepted>>>,
    stopped: Arc<AtomicBool>,
}

impl Listening {
    pub(crate) fn accepted(&self) -> Vec<Accepted> {
        let accepted = self.accepted.lock();
        accepted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a connection that no thread serves.
    pub(crate) fn accept(&self, patience: Duration) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.set_nonblocking(true)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.socket.accept() {
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    thread::sleep(STEP);
                }
                Err(error) => return Err(error),
                Ok((stream, peer)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    return Ok((stream, peer));
                }
            }
        }
    }

    /// Ends a thread that waits in `accept`, and with it the last reference to the socket.
    pub(crate) fn stop(self) -> io::Result<()> {
        self.stopped.store(true, Ordering::SeqCst);
        SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both)
    }
}

/// Listens, and serves unless the behaviour is to leave that to the test. An IPv6 wildcard takes
/// IPv4 connections too.
pub(crate) fn listen(
    at: SocketAddr,
    behaviour: &Behaviour,
    protocol: Protocol,
) -> io::Result<Listening> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.cloexec(), Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(!at.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    let socket = Arc::new(TcpListener::from(socket));
    let listening = Listening {
        address: socket.local_addr()?,
        socket: Arc::clone(&socket),
        accepted: Arc::default(),
        stopped: Arc::default(),
    };
    if *behaviour != Behaviour::Manual {
        let (accepted, stopped) = (listening.accepted.clone(), listening.stopped.clone());
        let behaviour = behaviour.clone();
        spawn(STACK, move || accept_all(&socket, &behaviour, &accepted, &stopped))?;
    }
    Ok(listening)
}

/// The same at consecutive ports.
pub(crate) fn listen_many(
    sockets: &mut Sockets,
    first: SocketAddr,
    count: u16,
    behaviour: &Behaviour,
) -> io::Result<()> {
    for offset in 0..count {
        let at = SocketAddr::new(first.ip(), first.port() + offset);
        sockets.add_listener(listen(at, behaviour, Protocol::TCP)?);
    }
    Ok(())
}

fn accept_all(
    socket: &TcpListener,
    behaviour: &Behaviour,
    accepted: &Mutex<Vec<Accepted>>,
    stopped: &AtomicBool,
) {
    while !stopped.load(Ordering::SeqCst) {
        // A client that has gone again is no reason to stop.
        let Ok((stream, peer)) = socket.accept() else {
            continue;
        };
        if let Ok(local) = stream.local_addr() {
            let mut list = accepted.lock().unwrap_or_else(PoisonError::into_inner);
            if list.len() < REMEMBERED {
                list.push(Accepted { id: 0, peer, local });
            }
        }
        let behaviour = behaviour.clone();
        let stack = if matches!(behaviour, Behaviour::Http(_)) { LARGE_STACK } else { STACK };
        // Without a thread, the connection is dropped, and the client sees that.
        let _ = spawn(stack, move || serve(stream, &behaviour));
    }
}

fn spawn(stack: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(stack).spawn(work)?;
    Ok(())
}

/// Serves one connection; how it ends is the client's to see.
fn serve(mut stream: TcpStream, behaviour: &Behaviour) {
    let _ = stream.set_nodelay(true);
    let _ = match behaviour {
        Behaviour::Echo => echo(&mut stream),
        Behaviour::Sink => io::copy(&mut stream, &mut io::sink()).map(drop),
        Behaviour::Banner(text) => {
            stream.write_all(text.as_bytes()).and_then(|()| echo(&mut stream))
        }
        Behaviour::Address => {
            stream.local_addr().and_then(|at| stream.write_all(plain(at).to_string().as_bytes()))
        }
        Behaviour::Http(name) => http::serve(stream, name),
        Behaviour::Name(name) => answer_with(&mut stream, name),
        Behaviour::Manual => Ok(()),
    };
}

fn answer_with(stream: &mut TcpStream, name: &str) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    if stream.read(&mut buffer)? == 0 {
        return Ok(());
    }
    stream.write_all(format!("{name}\n").as_bytes())?;
    echo(stream)
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// An IPv4-mapped address as the IPv4 address that it stands for.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
