//! A client of HTTP/2 that writes frames as a test wants them, however wrong, and says what it heard.

mod hpack;

use std::{fmt, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::rig::Rig;
use crate::tests::mesh::SOON;
pub(super) use hpack::{HUFFMAN_AUTHORITY, field, fields, indexed, literal};

/// What every connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITIZED: u8 = 32;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const COMPRESSION_ERROR: u32 = 9;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// How long nothing may be heard where something has to be.
const PATIENCE: Duration = Duration::from_secs(8);

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    sized(u32::try_from(payload.len()).unwrap(), kind, flags, stream, payload)
}

/// A frame that claims another length than it has.
pub(super) fn sized(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One setting.
pub(super) fn setting(name: u16, value: u32) -> Vec<u8> {
    let mut setting = name.to_be_bytes().to_vec();
    setting.extend(value.to_be_bytes());
    setting
}

/// One frame with one setting.
pub(super) fn settings(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, setting(name, value))
}

/// What a test waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// GOAWAY with this code, and then the end of the connection.
    GoAway(u32),
    /// RST_STREAM of this stream, with this code.
    Reset(u32, u32),
    /// The whole answer on this stream, and its status.
    Answer(u32, u16),
    /// The end of the connection, without a word.
    Closed,
    /// The answer to a PING with this content.
    Pong([u8; 8]),
    /// Settings were acknowledged.
    SettingsAck,
    /// A piece of an answer's body, of so many bytes.
    Data(u32, usize),
    /// Nothing at all, for a long time.
    Silence,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CODES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        let name = |code: &u32| CODES.get(*code as usize).copied().unwrap_or("an unknown code");
        match self {
            Self::GoAway(code) => write!(f, "GOAWAY {}", name(code)),
            Self::Reset(stream, code) => write!(f, "RST_STREAM {stream} {}", name(code)),
            Self::Answer(stream, status) => write!(f, "answer {status} on stream {stream}"),
            Self::Closed => f.write_str("the end of the connection"),
            Self::Pong(_) => f.write_str("PING ACK"),
            Self::Silence => f.write_str("silence"),
            Self::SettingsAck => f.write_str("SETTINGS ACK"),
            Self::Data(stream, length) => write!(f, "{length} bytes on stream {stream}"),
        }
    }
}

/// The client's end of a connection.
pub(super) struct Peer {
    stream: TcpStream,
    /// What each stream was answered with so far.
    statuses: Vec<(u32, u16)>,
    /// The peer's first settings.
    pub(super) settings: Vec<(u16, u32)>,
}

impl Peer {
    /// Connects, and says nothing.
    pub(super) async fn bare(rig: &Rig, to: SocketAddr) -> Self {
        let stream = rig.client.dial(to).await;
        Self { stream, statuses: Vec::new(), settings: Vec::new() }
    }

    /// Connects and agrees on settings. The acknowledgement of ours is heard later.
    pub(super) async fn connect(rig: &Rig, to: SocketAddr) -> Self {
        let mut peer = Self::bare(rig, to).await;
        peer.say(PREFACE).await;
        peer.say(&frame(SETTINGS, 0, 0, "")).await;
        peer.agree().await;
        peer
    }

    /// Hears the peer's first settings and the acknowledgement of ours.
    pub(super) async fn agree(&mut self) {
        while self.settings.is_empty() || self.hear().await != Heard::SettingsAck {
            if self.settings.is_empty() {
                let (kind, flags, _, payload) = self.frame().await.expect("the peer's settings");
                assert_eq!((kind, flags), (SETTINGS, 0), "the first frame");
                let pairs = payload.chunks(6);
                self.settings =
                    pairs.map(|pair| (number(&pair[..2]) as u16, number(&pair[2..]))).collect();
                self.say(&frame(SETTINGS, ACK, 0, "")).await;
            }
        }
    }

    /// Says bytes. A peer that has closed meanwhile says why when it is heard.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let _ = timeout(SOON, self.stream.write_all(bytes)).await.expect("it is read");
    }

    /// Says bytes as far as the peer takes them; `false` if it does not take all.
    pub(super) async fn try_say(&mut self, bytes: &[u8], patience: Duration) -> bool {
        matches!(timeout(patience, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame, or why there is none.
    async fn frame(&mut self) -> Result<(u8, u8, u32, Vec<u8>), Heard> {
        let mut head = [0; 9];
        self.fill(&mut head).await?;
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.fill(&mut payload).await?;
        Ok((head[3], head[4], number(&head[5..]) & 0x7fff_ffff, payload))
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Heard> {
        match timeout(PATIENCE, self.stream.read_exact(bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Heard::Closed),
            Err(_) => Err(Heard::Silence),
        }
    }

    /// The next thing that a test may wait for.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            let (kind, flags, stream, payload) = match self.frame().await {
                Ok(frame) => frame,
                Err(heard) => return heard,
            };
            let last = flags & END_STREAM != 0;
            match kind {
                GOAWAY => {
                    let code = number(&payload[4..8]);
                    let end = loop {
                        if let Err(end) = self.frame().await {
                            break end;
                        }
                    };
                    return if end == Heard::Closed { Heard::GoAway(code) } else { end };
                }
                RST_STREAM => return Heard::Reset(stream, number(&payload)),
                PING if flags & ACK != 0 => return Heard::Pong(payload.try_into().unwrap()),
                SETTINGS if flags & ACK != 0 => return Heard::SettingsAck,
                HEADERS => {
                    if self.status(stream).is_none() {
                        self.statuses.push((stream, hpack::status(&payload)));
                    }
                    if last {
                        return Heard::Answer(stream, self.status(stream).unwrap_or(0));
                    }
                }
                DATA if last => return Heard::Answer(stream, self.status(stream).unwrap_or(0)),
                DATA => return Heard::Data(stream, payload.len()),
                _ => {}
            }
        }
    }

    /// The connection ends, whatever is said before.
    pub(super) async fn ends(&mut self, why: &str) {
        let mut rest = Vec::new();
        let read = timeout(SOON, self.stream.read_to_end(&mut rest)).await;
        // It may end with a reset.
        drop(read.unwrap_or_else(|_| panic!("no end: {why}")));
    }

    fn status(&self, stream: u32) -> Option<u16> {
        self.statuses.iter().find(|known| known.0 == stream).map(|known| known.1)
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}
