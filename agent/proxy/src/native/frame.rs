//! The frames of the native wire, as bytes (`docs/reference/wire.md`).
//!
//! Pure and total: a peer chooses these bytes.

use bytes::{BufMut, BytesMut};

use super::open::Open;
use crate::headers;

/// Octets of a frame's header: type, flags, length.
pub(crate) const HEADER: usize = 4;
/// Longest payload of a DATA frame: with its header, it fills four TLS records exactly.
pub(crate) const MAX_DATA: usize = 4 * (16 << 10) - HEADER;
/// Longest payload of any other frame.
pub(crate) const MAX_CONTROL: usize = 1024;
/// Flag: whoever does not know the frame's type may pass over it.
const IGNORABLE: u8 = 1;

/// Frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Accept = 2,
    Refuse = 3,
    Data = 4,
    End = 5,
    Reset = 6,
    Close = 7,
}

/// What a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// `None` for a type that is not known and may be passed over.
    pub(crate) kind: Option<Kind>,
    /// Octets that follow.
    pub(crate) length: usize,
}

/// Every frame but DATA, whose payload is never held in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The client asks for a connection.
    Open(Open),
    /// The server is connected.
    Accept,
    /// The server is not, and will not be.
    Refuse(Refusal),
    /// No more bytes from this side.
    End,
    /// This side has broken off.
    Reset,
    /// No sessions after the first `sessions` of this connection.
    Close { sessions: u32 },
}

/// Why a session was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A status as HTTP has it: 400, 403, or 503.
    pub(crate) status: u16,
    /// A reason code, perhaps empty.
    pub(crate) reason: String,
}

/// Why a peer's bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of an unknown type")]
    UnknownType,
    #[error("a frame with flags that mean nothing")]
    Flags,
    #[error("a frame that is too long")]
    TooLong,
    #[error("a frame whose payload cannot be read")]
    Payload,
    #[error("a frame that has no place here")]
    Unexpected,
}

impl FrameError {
    /// Stable code for metrics.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::Flags => "flags",
            Self::TooLong => "too_long",
            Self::Payload => "payload",
            Self::Unexpected => "unexpected",
        }
    }
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        [Self::Open, Self::Accept, Self::Refuse, Self::Data, Self::End, Self::Reset, Self::Close]
            .into_iter()
            .find(|kind| *kind as u8 == value)
    }
}

impl Header {
    /// Reads a header, and checks what can be checked before the payload is there.
    pub(crate) fn decode(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        let [kind, flags, high, low] = bytes;
        let kind = Kind::from_u8(kind);
        let length = usize::from(u16::from_be_bytes([high, low]));
        match (kind, flags) {
            (Some(_), 0) | (None, IGNORABLE) => {}
            (None, _) => return Err(FrameError::UnknownType),
            (Some(_), _) => return Err(FrameError::Flags),
        }
        let longest = if kind == Some(Kind::Data) { MAX_DATA } else { MAX_CONTROL };
        if length > longest {
            return Err(FrameError::TooLong);
        }
        Ok(Self { kind, length })
    }
}

/// The header of a frame; `length` is within the bounds that [`Header::decode`] checks.
pub(crate) fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [kind as u8, 0, high, low]
}

impl Control {
    /// Reads the payload of a frame that is not DATA.
    pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, FrameError> {
        match (kind, payload) {
            (Kind::Open, _) => Open::decode(payload).map(Self::Open),
            (Kind::Accept, []) => Ok(Self::Accept),
            (Kind::Refuse, [high, low, reason @ ..]) => {
                let status = u16::from_be_bytes([*high, *low]);
                let reason = headers::parse_reason(reason).unwrap_or_default().to_owned();
                Ok(Self::Refuse(Refusal { status, reason }))
            }
            (Kind::End, []) => Ok(Self::End),
            (Kind::Reset, []) => Ok(Self::Reset),
            (Kind::Close, sessions) => {
                let sessions = sessions.try_into().map_err(|_| FrameError::Payload)?;
                Ok(Self::Close { sessions: u32::from_be_bytes(sessions) })
            }
            _ => Err(FrameError::Payload),
        }
    }

    /// The whole frame.
    pub(crate) fn encode(&self) -> BytesMut {
        let mut payload = BytesMut::new();
        let kind = match self {
            Self::Open(open) => {
                open.encode(&mut payload);
                Kind::Open
            }
            Self::Accept => Kind::Accept,
            Self::Refuse(refusal) => {
                payload.put_u16(refusal.status);
                payload.put_slice(refusal.reason.as_bytes());
                Kind::Refuse
            }
            Self::End => Kind::End,
            Self::Reset => Kind::Reset,
            Self::Close { sessions } => {
                payload.put_u32(*sessions);
                Kind::Close
            }
        };
        let mut frame = BytesMut::with_capacity(HEADER + payload.len());
        frame.put_slice(&header(kind, payload.len()));
        frame.put_slice(&payload);
        frame
    }
}
