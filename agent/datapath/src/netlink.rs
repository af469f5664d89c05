//! Netlink messages (rtnetlink(7), sock_diag(7)): as much of them as one rule, one route and one
//! question about sockets need.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

const AF_NETLINK: i32 = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
/// Create, and do not replace.
pub(crate) const CREATE: u16 = 0x600;
/// Everything of a kind, not one.
pub(crate) const DUMP: u16 = 0x300;
const HEADER: usize = 16;
const BUFFER: usize = 64 << 10;
/// More than any pod's routing tables; beyond it, something is wrong.
const LONGEST_ANSWER: usize = 4 << 20;
/// The kernel answers within the call; this is for what should not happen.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is spoken about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `NETLINK_ROUTE`.
    Routes = 0,
    /// `NETLINK_SOCK_DIAG`.
    Sockets = 4,
}

/// A request's body, or one answer. For routes and rules: a header of twelve bytes, whose first is
/// the family, and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    /// A body without attributes: eight header fields of a byte each, and no flags.
    pub(crate) fn new(header: [u8; 8]) -> Self {
        let mut bytes = header.to_vec();
        bytes.extend([0; 4]);
        Self(bytes)
    }

    /// A body with another header.
    pub(crate) fn of(header: Vec<u8>) -> Self {
        Self(header)
    }

    /// Adds an attribute.
    #[must_use]
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute that is a number.
    #[must_use]
    pub(crate) fn with_number(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// A field of the header.
    pub(crate) fn header(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// A part of the header; nothing where the message is shorter.
    pub(crate) fn bytes(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.0.get(range)
    }

    /// An attribute that is a number, of one byte or four.
    pub(crate) fn number(&self, kind: u16) -> Option<u32> {
        self.number_after(12, kind)
    }

    /// The same after a header of another length.
    pub(crate) fn number_after(&self, header: usize, kind: u16) -> Option<u32> {
        let mut rest = self.0.get(header..)?;
        while let Some((length, found)) = rest.first_chunk::<4>().map(|head| {
            (u16::from_ne_bytes([head[0], head[1]]), u16::from_ne_bytes([head[2], head[3]]))
        }) {
            let value = rest.get(4..usize::from(length))?;
            if found == kind {
                return match *value {
                    [byte] => Some(byte.into()),
                    [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
                    _ => None,
                };
            }
            rest = rest.get(usize::from(length).next_multiple_of(4)..)?;
        }
        None
    }
}

/// A socket that speaks to the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open(protocol: Protocol) -> io::Result<Self> {
        let kind = Type::RAW.cloexec();
        let protocol = Some(socket2::Protocol::from(protocol as i32));
        let socket = Socket::new(Domain::from(AF_NETLINK), kind, protocol)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and returns what the kernel answers, or its error.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, body: &Body) -> io::Result<Vec<Body>> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.0.len()).map_err(io::Error::other)?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend((flags | REQUEST | ACK).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend(&body.0);
        self.socket.send(&request)?;
        let mut answers = Vec::new();
        let mut total = 0;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = (&self.socket).read(&mut buffer)?;
            total += length;
            if total > LONGEST_ANSWER {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer has no end"));
            }
            if take(&buffer[..length], self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Takes the messages of one packet; true after the last.
fn take(mut packet: &[u8], sequence: u32, answers: &mut Vec<Body>) -> io::Result<bool> {
    let cut_short = || io::Error::new(ErrorKind::InvalidData, "a message is cut short");
    while !packet.is_empty() {
        let head = packet.first_chunk::<HEADER>().ok_or_else(cut_short)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let number = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let body = packet.get(HEADER..length).ok_or_else(cut_short)?;
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        // An answer to a request that was given up.
        if number != sequence {
            continue;
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk::<4>().ok_or_else(cut_short)?;
                return match i32::from_ne_bytes(*code) {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            _ => answers.push(Body(body.to_vec())),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let body = Body::new([2, 0, 0, 0, 0, 0, 0, 1]).with_number(15, 70_000).with(21, &[117]);
        assert_eq!(
            (body.number(15), body.number(21), body.number(6)),
            (Some(70_000), Some(117), None)
        );
        assert_eq!((body.header(0), body.header(7)), (2, 1));
        assert_eq!(body.0.len() % 4, 0);
    }

    #[test]
    fn a_dump_ends_when_it_is_done_and_an_error_is_an_error() {
        let body = Body::new([2; 8]);
        let packet = [message(32, 1, &body.0), message(3, 1, &[0; 4])].concat();
        let mut answers = Vec::new();
        assert!(take(&packet, 1, &mut answers).unwrap());
        assert_eq!(answers, [body]);
        let refused = message(2, 1, &(-17_i32).to_ne_bytes());
        let error = take(&refused, 1, &mut answers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(!take(&refused, 2, &mut answers).unwrap(), "an answer to somebody else");
    }

    #[test]
    fn messages_that_are_cut_short_are_refused() {
        let whole = message(32, 1, &[0; 12]);
        for length in 1..whole.len() {
            assert!(take(&whole[..length], 1, &mut Vec::new()).is_err(), "{length}");
        }
        for end in 0..8 {
            let body = Body::new([0; 8]).with_number(6, 1);
            assert_eq!(Body(body.0[..12 + end].to_vec()).number(6), None);
        }
    }
}
