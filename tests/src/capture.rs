//! Every packet on the wire between nodes, to prove what is in them and what is not.

use std::{
    collections::{BTreeMap, HashSet},
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{netns::Netns, poll::wait_for};

/// `ETH_P_ALL`: frames of every protocol, both directions, all interfaces of the namespace.
const EVERY_PROTOCOL: u16 = 3;
/// Bounds memory; a capture that has reached it is no longer a proof of absence.
const MAX_BYTES: usize = 256 << 20;
/// The largest frame: veth passes on what segmentation offload has not cut yet.
const MAX_FRAME: usize = 1 << 17;
const BUFFER: usize = 64 << 20;
/// How long what has been sent may take to be seen.
const WITHIN: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

/// Addresses of one direction of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Who sends.
    pub from: SocketAddr,
    /// Who receives.
    pub to: SocketAddr,
}

/// One TCP segment; frames that pass several interfaces are kept once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    flow: Flow,
    sequence: u32,
    payload: Vec<u8>,
}

#[derive(Default)]
struct Recording {
    /// Every frame as it came, for what is not TCP.
    frames: HashSet<Vec<u8>>,
    bytes: usize,
    lost: Option<String>,
}

/// A running capture. Dropping it ends it.
pub struct Capture {
    recording: Arc<Mutex<Recording>>,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Capture {
    pub(crate) fn start(netns: &Netns) -> Result<Self> {
        let opened = netns.run(|| {
            let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        })?;
        let socket = opened.context("cannot open a packet socket")?;
        set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        socket.set_read_timeout(Some(TICK))?;
        let recording = Arc::new(Mutex::new(Recording::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&recording), Arc::clone(&stop));
        let listener = thread::spawn(move || record(socket, &into, &until));
        Ok(Self { recording, stop, listener: Some(listener) })
    }

    /// Whether a packet, or a TCP stream put together from packets, contains `marker`.
    ///
    /// # Errors
    /// Where the capture has lost packets, and the answer would prove nothing.
    pub fn contains(&self, marker: &[u8]) -> Result<bool> {
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &recording.lost {
            anyhow::bail!("the capture is not complete: {reason}");
        }
        let whole = recording.frames.iter().any(|frame| find(frame, marker));
        Ok(whole || streams(&recording).values().any(|stream| find(stream, marker)))
    }

    /// Waits until `marker` has been seen. Everything that was sent before it on the same path has
    /// been seen by then too.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_for(&self, marker: &[u8]) -> Result<()> {
        let what = format!("{:?} on the wire", String::from_utf8_lossy(marker));
        wait_for(&what, WITHIN, || Ok(self.contains(marker)?.then_some(())))
    }

    /// Waits until exactly so many TCP payload bytes have gone to and from a port.
    ///
    /// # Errors
    /// When it does not come to that; the error says how many there are.
    pub fn wait_for_payload(&self, port: u16, bytes: usize) -> Result<()> {
        wait_for("the payload on the wire", WITHIN, || {
            let found = self.payload_bytes(port)?;
            ensure!(found == bytes, "{found} bytes instead of {bytes}");
            Ok(Some(()))
        })
    }

    /// What each direction of each TCP connection has carried, in order, retransmissions once.
    ///
    /// # Errors
    /// As [`Self::contains`].
    pub fn streams(&self) -> Result<BTreeMap<Flow, Vec<u8>>> {
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(recording.lost.is_none(), "the capture is not complete");
        Ok(streams(&recording))
    }

    /// TCP payload bytes to and from a port.
    ///
    /// # Errors
    /// As [`Self::contains`].
    pub fn payload_bytes(&self, port: u16) -> Result<usize> {
        let streams = self.streams()?;
        let wanted = |flow: &Flow| flow.from.port() == port || flow.to.port() == port;
        Ok(streams.iter().filter(|(flow, _)| wanted(flow)).map(|(_, s)| s.len()).sum())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            // It only ends by returning; a panic there has been printed already.
            let _ = listener.join();
        }
    }
}

fn record(mut socket: Socket, into: &Mutex<Recording>, until: &AtomicBool) {
    let mut frame = vec![0; MAX_FRAME];
    while !until.load(Ordering::Relaxed) {
        let read = socket.read(&mut frame);
        let mut recording = into.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(length) if recording.bytes + length > MAX_BYTES => {
                recording.lost = Some(format!("more than {MAX_BYTES} bytes"));
            }
            Ok(length) => {
                if recording.frames.insert(frame[..length].to_vec()) {
                    recording.bytes += length;
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => recording.lost = Some(error.to_string()),
        }
    }
}

fn streams(recording: &Recording) -> BTreeMap<Flow, Vec<u8>> {
    let mut flows: BTreeMap<Flow, Vec<Segment>> = BTreeMap::new();
    for segment in recording.frames.iter().filter_map(|frame| parse(frame)) {
        flows.entry(segment.flow).or_default().push(segment);
    }
    flows.into_iter().map(|(flow, segments)| (flow, assemble(segments))).collect()
}

/// Puts segments into the order of their sequence numbers, which may wrap, without repetitions.
fn assemble(mut segments: Vec<Segment>) -> Vec<u8> {
    let Some(origin) = segments.first().map(|segment| segment.sequence) else {
        return Vec::new();
    };
    let offset = |segment: &Segment| i64::from(segment.sequence.wrapping_sub(origin).cast_signed());
    segments.sort_by_key(offset);
    let mut stream = Vec::new();
    let mut next = i64::MIN;
    for segment in &segments {
        let start = offset(segment);
        let repeated = usize::try_from(next.saturating_sub(start)).unwrap_or(0);
        stream.extend(segment.payload.iter().skip(repeated));
        next = next.max(start + segment.payload.len() as i64);
    }
    stream
}

/// Reads an Ethernet frame as a TCP segment with payload; `None` for everything else.
fn parse(frame: &[u8]) -> Option<Segment> {
    let (ethernet, packet) = frame.split_at_checked(14)?;
    let (from, to, segment) = match ethernet[12..14] {
        [0x08, 0x00] => parse_v4(packet)?,
        [0x86, 0xdd] => parse_v6(packet)?,
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    let header = usize::from(segment.get(12)? >> 4) * 4;
    let payload = segment.get(header..)?;
    (!payload.is_empty()).then_some(Segment {
        flow: Flow { from: SocketAddr::new(from, port(0)?), to: SocketAddr::new(to, port(2)?) },
        sequence: u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?),
        payload: payload.to_vec(),
    })
}

fn parse_v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    let is_tcp = *packet.get(9)? == 6;
    let segment = packet.get(header..length)?;
    is_tcp.then_some((address(12)?, address(16)?, segment))
}

fn parse_v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    let is_tcp = *packet.get(6)? == 6;
    let segment = packet.get(40..40 + length)?;
    is_tcp.then_some((address(8)?, address(24)?, segment))
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, payload: &str) -> Segment {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Segment { flow: Flow { from: address, to: address }, sequence, payload: payload.into() }
    }

    #[test]
    fn a_stream_is_put_together_over_reordering_repetition_and_wrap_around() {
        let segments = vec![
            segment(2, "ghij"),
            segment(u32::MAX - 3, "abcd"),
            segment(u32::MAX - 1, "cdef"),
            segment(0, "ef"),
        ];
        assert_eq!(assemble(segments), b"abcdefghij");
    }

    #[test]
    fn frames_cut_short_are_not_segments() {
        let mut frame = vec![0; 14];
        frame[12] = 0x08;
        frame.extend([0x45, 0, 0, 44]);
        frame.extend([0; 5]);
        frame.push(6);
        frame.extend([0; 30]);
        for length in 0..frame.len() {
            assert_eq!(parse(&frame[..length]), None, "{length} bytes");
        }
    }
}
