//! Sockets inside a pod, as values.

use std::{net::SocketAddr, time::Duration};

use super::{
    PATIENCE, Pod,
    protocol::{Accepted, Datagram, Failure, Opened, Request, SocketId},
};

/// Longest stream that is handed over byte by byte; use the pattern for more.
const MAX_STREAM: usize = 1 << 20;

/// A listening socket.
#[derive(Debug)]
pub struct Listener<'a> {
    pod: &'a Pod,
    opened: Opened,
}

impl<'a> Listener<'a> {
    pub(super) fn new(pod: &'a Pod, opened: Opened) -> Self {
        Self { pod, opened }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.opened.address
    }

    /// Takes a connection, where the behaviour leaves that to the caller.
    ///
    /// # Errors
    /// `EAGAIN` where none comes in time.
    pub fn accept(&self) -> Result<(Conn<'a>, Accepted), Failure> {
        let accepted: Accepted =
            self.pod.call(&Request::Accept { id: self.opened.id, timeout: millis(PATIENCE) })?;
        Ok((Conn::new(self.pod, accepted.id), accepted))
    }

    /// Everything that has been accepted so far.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn accepted(&self) -> Result<Vec<Accepted>, Failure> {
        self.pod.call(&Request::ListAccepted { id: self.opened.id })
    }

    /// Stops listening.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn close(self) -> Result<(), Failure> {
        self.pod.call(&Request::Close { id: self.opened.id })
    }
}

/// A connection. Dropping the value leaves it open; the process closes it when it ends.
#[derive(Debug)]
pub struct Conn<'a> {
    pod: &'a Pod,
    id: SocketId,
}

impl<'a> Conn<'a> {
    pub(super) fn new(pod: &'a Pod, id: SocketId) -> Self {
        Self { pod, id }
    }

    /// Sends all bytes.
    ///
    /// # Errors
    /// As `send` fails; so for every call below, each as its system call.
    pub fn send(&self, data: &[u8]) -> Result<(), Failure> {
        self.pod.call(&Request::Send { id: self.id, data: data.to_vec() })
    }

    /// Receives exactly `length` bytes.
    ///
    /// # Errors
    /// `EOF` where the stream ends before, `EAGAIN` where nothing comes in time.
    pub fn receive(&self, length: usize) -> Result<Vec<u8>, Failure> {
        self.receive_within(length, PATIENCE)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_within(&self, length: usize, patience: Duration) -> Result<Vec<u8>, Failure> {
        self.pod.call(&Request::Receive { id: self.id, length, timeout: millis(patience) })
    }

    /// Sends, and receives as much as was sent.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`].
    pub fn exchange(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(data)?;
        self.receive(data.len())
    }

    /// Receives until the peer has closed its side.
    ///
    /// # Errors
    /// `ECONNRESET` where it resets instead.
    pub fn receive_to_end(&self) -> Result<Vec<u8>, Failure> {
        self.pod.call(&Request::ReceiveToEnd {
            id: self.id,
            limit: MAX_STREAM,
            timeout: millis(PATIENCE),
        })
    }

    /// Sends the pattern from `from` on, until `length` bytes are sent or a write has waited for
    /// `patience`; returns how many were sent.
    ///
    /// # Errors
    /// As `send` fails, but for having waited.
    pub fn send_pattern(&self, from: u64, length: u64, patience: Duration) -> Result<u64, Failure> {
        self.pod.call(&Request::SendPattern {
            id: self.id,
            from,
            length,
            timeout: millis(patience),
        })
    }

    /// Receives `length` bytes of the pattern; false where they differ from it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_pattern(&self, from: u64, length: u64) -> Result<bool, Failure> {
        self.pod.call(&Request::ReceivePattern {
            id: self.id,
            from,
            length,
            timeout: millis(PATIENCE),
        })
    }

    /// Closes the sending side.
    ///
    /// # Errors
    /// As `shutdown` fails.
    pub fn shutdown_write(&self) -> Result<(), Failure> {
        self.pod.call(&Request::ShutdownWrite { id: self.id })
    }

    /// `getpeername`.
    ///
    /// # Errors
    /// As the call fails.
    pub fn peer_name(&self) -> Result<SocketAddr, Failure> {
        self.pod.call(&Request::PeerName { id: self.id })
    }

    /// `getsockname`.
    ///
    /// # Errors
    /// As the call fails.
    pub fn socket_name(&self) -> Result<SocketAddr, Failure> {
        self.pod.call(&Request::SocketName { id: self.id })
    }

    /// Closes.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn close(self) -> Result<(), Failure> {
        self.pod.call(&Request::Close { id: self.id })
    }

    /// Closes with a reset (`SO_LINGER` 0).
    ///
    /// # Errors
    /// As the call fails.
    pub fn reset(self) -> Result<(), Failure> {
        self.pod.call(&Request::Reset { id: self.id })
    }
}

/// A UDP socket.
#[derive(Debug)]
pub struct Udp<'a> {
    pod: &'a Pod,
    opened: Opened,
}

impl<'a> Udp<'a> {
    pub(super) fn new(pod: &'a Pod, opened: Opened) -> Self {
        Self { pod, opened }
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.opened.address
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// As `sendto` fails.
    pub fn send(&self, to: SocketAddr, data: &[u8]) -> Result<(), Failure> {
        self.pod.call(&Request::UdpSend { id: self.opened.id, to, data: data.to_vec() })
    }

    /// Receives a datagram.
    ///
    /// # Errors
    /// `EAGAIN` where none comes in time.
    pub fn receive(&self) -> Result<Datagram, Failure> {
        self.pod.call(&Request::UdpReceive { id: self.opened.id, timeout: millis(PATIENCE) })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
