//! What a test and the process inside a pod say to each other: one JSON object a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    error, fmt,
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::{Ask, Load};

/// How it went for a process whose first act was to connect.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FirstAct {
    /// How often it tried, until it worked.
    pub attempts: u64,
    /// What went wrong before.
    pub errors: BTreeSet<String>,
    /// From the first attempt to the answer.
    pub elapsed_ms: u64,
}

/// A number that the process gives to a socket.
pub type SocketId = u64;

/// One thing to do. Times are in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum Request {
    /// Answers, to show that the process runs.
    Ping,
    /// Binds and listens; answers [`Opened`].
    Listen {
        /// Where.
        at: SocketAddr,
        /// What becomes of connections.
        behaviour: Behaviour,
        /// By Multipath TCP, plain TCP for clients that do not speak it.
        mptcp: bool,
    },
    /// The same at consecutive ports.
    ListenMany {
        /// The first.
        first: SocketAddr,
        /// How many.
        count: u16,
        /// What becomes of connections.
        behaviour: Behaviour,
    },
    /// Takes a connection of a [`Behaviour::Manual`] listener; answers [`Accepted`].
    Accept {
        /// The listener.
        id: SocketId,
        /// How long to wait.
        timeout: u64,
    },
    /// What has been accepted so far; answers a list of [`Accepted`] with ids of 0.
    ListAccepted {
        /// The listener.
        id: SocketId,
    },
    /// Connects; answers [`Opened`].
    Connect {
        /// Where.
        to: SocketAddr,
        /// What to set before.
        options: ConnectOptions,
    },
    /// Sends all bytes.
    Send {
        /// The connection.
        id: SocketId,
        /// What.
        data: Vec<u8>,
    },
    /// Sends a pattern until it is sent or a write has waited too long; answers how much went.
    SendPattern {
        /// The connection.
        id: SocketId,
        /// Where in the pattern to start.
        from: u64,
        /// How much.
        length: u64,
        /// How long one write may wait.
        timeout: u64,
    },
    /// Receives exactly so many bytes; answers them.
    Receive {
        /// The connection.
        id: SocketId,
        /// How many.
        length: usize,
        /// How long one read may wait.
        timeout: u64,
    },
    /// Receives until the peer has closed its side; answers the bytes.
    ReceiveToEnd {
        /// The connection.
        id: SocketId,
        /// More than this is an error.
        limit: usize,
        /// How long one read may wait.
        timeout: u64,
    },
    /// Receives so many bytes of the pattern; answers whether they were right.
    ReceivePattern {
        /// The connection.
        id: SocketId,
        /// Where in the pattern to start.
        from: u64,
        /// How much.
        length: u64,
        /// How long one read may wait.
        timeout: u64,
    },
    /// Closes the sending side.
    ShutdownWrite {
        /// The connection.
        id: SocketId,
    },
    /// Closes.
    Close {
        /// The socket.
        id: SocketId,
    },
    /// Closes with a reset.
    Reset {
        /// The connection.
        id: SocketId,
    },
    /// `getpeername`; answers an address.
    PeerName {
        /// The connection.
        id: SocketId,
    },
    /// `getsockname`; answers an address.
    SocketName {
        /// The connection.
        id: SocketId,
    },
    /// Opens a UDP socket; answers [`Opened`].
    UdpBind {
        /// Where.
        at: SocketAddr,
    },
    /// Sends a datagram.
    UdpSend {
        /// The socket.
        id: SocketId,
        /// Where to.
        to: SocketAddr,
        /// What.
        data: Vec<u8>,
    },
    /// Receives a datagram; answers [`Datagram`].
    UdpReceive {
        /// The socket.
        id: SocketId,
        /// How long to wait.
        timeout: u64,
    },
    /// Makes many connections; answers [`BurstReport`].
    Burst(Burst),
    /// Makes requests; answers a list of [`super::http::Reply`].
    Ask(Box<Ask>),
    /// The heads of requests that have arrived with this value of [`super::http::MARK`].
    Heard {
        /// The value.
        mark: String,
    },
    /// Lets go of requests with this mark that a server holds, and of those that come later.
    Release {
        /// The value.
        mark: String,
    },
    /// Begins to make requests, until [`Request::EndLoad`].
    BeginLoad(Box<Load>),
    /// What came of it so far; answers [`super::http::LoadReport`].
    LoadSoFar,
    /// Makes no more requests; answers [`super::http::LoadReport`].
    EndLoad,
}

/// What a listener does with its connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Behaviour {
    /// Sends back what it receives, until the client has closed its side; then closes.
    Echo,
    /// Reads all and sends nothing, then closes.
    Sink,
    /// Speaks first, then echoes.
    Banner(String),
    /// Sends the address that the connection came in at, as text, then closes.
    Address,
    /// Speaks HTTP/1.1 and HTTP/2: answers with what it was asked, and this name in `x-pod`.
    Http(String),
    /// Answers the first bytes with this name and a line end, then echoes.
    Name(String),
    /// Leaves connections to [`Request::Accept`].
    Manual,
}

/// What to set before connecting.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectOptions {
    /// `bind` to this address.
    pub bind: Option<SocketAddr>,
    /// `SO_BINDTODEVICE`.
    pub device: Option<String>,
    /// Dial an IPv4 address as `::ffff:a.b.c.d`, from an IPv6 socket.
    pub v4_mapped: bool,
    /// Multipath TCP.
    pub mptcp: bool,
    /// Milliseconds; 10 seconds where it is not set.
    pub timeout: Option<u64>,
}

/// Many connections, one after the other in each of several threads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Burst {
    /// Where to; taken in turns.
    pub to: Vec<SocketAddr>,
    /// How many connections.
    pub count: u64,
    /// How many threads.
    pub threads: u64,
    /// What each destination must answer, in the order of `to`; without it, each must echo.
    pub expect: Option<Vec<String>>,
    /// Bytes that each connection echoes.
    pub payload: u64,
}

/// What came of a [`Burst`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BurstReport {
    /// Connections that were answered right.
    pub ok: u64,
    /// Connections that were answered wrong.
    pub wrong: u64,
    /// Connections that failed, by error.
    pub failures: BTreeMap<String, u64>,
    /// One failure or wrong answer, told in full.
    pub example: String,
    /// How long all of it took.
    pub elapsed_ms: u64,
}

/// A new socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// Its number.
    pub id: SocketId,
    /// Its own address, as `getsockname` says.
    pub address: SocketAddr,
}

/// A connection that a listener has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its number; 0 where a behaviour serves it.
    pub id: SocketId,
    /// The client, as `accept` says.
    pub peer: SocketAddr,
    /// The address it came in at, as `getsockname` says.
    pub local: SocketAddr,
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// What.
    pub data: Vec<u8>,
}

/// How a request ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// As wanted.
    Ok(Value),
    /// Not so.
    Err(Failure),
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's name ([`super::errno_name`]).
    pub errno: String,
    /// What was tried.
    pub context: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.context, self.errno)
    }
}

impl error::Error for Failure {}

/// The byte at a place of the pattern that both sides know. Its period of 251 × 256 bytes is no
/// multiple of any buffer, so that a lost or repeated block cannot go unnoticed.
pub fn pattern_byte(at: u64) -> u8 {
    ((at % 251) ^ (at / 251 % 256)) as u8
}

/// A stretch of the pattern.
pub fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(pattern_byte).collect()
}
