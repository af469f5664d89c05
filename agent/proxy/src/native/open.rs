//! The payload of OPEN: a version, and tagged fields that later versions can add to.
//!
//! Pure and total: a peer chooses these bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, BytesMut};

use super::frame::FrameError;
use crate::authority::canonical;

/// The version of everything on this connection; another ALPN would be another wire.
const VERSION: u8 = 1;
/// Field: the client's address, as its application has it.
const CLIENT: u8 = 1;
/// Field: the address that the client wants to reach.
const DESTINATION: u8 = 2;
/// Fields from this one on may be passed over by whoever does not know them.
const FIRST_OPTIONAL: u8 = 128;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// The client. Of its address, only the port is believed.
    pub(crate) client: SocketAddr,
    /// Where it wants to go: the address and port that this very connection was made to.
    pub(crate) destination: SocketAddr,
}

impl Open {
    /// Reads a payload. Both addresses must be there, once.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let Some((&VERSION, mut rest)) = payload.split_first() else {
            return Err(FrameError::Payload);
        };
        let (mut client, mut destination) = (None, None);
        while let [tag, length, after @ ..] = rest {
            let (value, after) =
                after.split_at_checked(usize::from(*length)).ok_or(FrameError::Payload)?;
            let slot = match *tag {
                CLIENT => Some(&mut client),
                DESTINATION => Some(&mut destination),
                FIRST_OPTIONAL.. => None,
                _ => return Err(FrameError::Payload),
            };
            if let Some(slot) = slot
                && slot.replace(address(value)?).is_some()
            {
                return Err(FrameError::Payload);
            }
            rest = after;
        }
        match (rest, client, destination) {
            ([], Some(client), Some(destination)) => Ok(Self { client, destination }),
            _ => Err(FrameError::Payload),
        }
    }

    /// Appends the payload.
    pub(crate) fn encode(&self, payload: &mut BytesMut) {
        payload.put_u8(VERSION);
        for (tag, address) in [(CLIENT, self.client), (DESTINATION, self.destination)] {
            payload.put_u8(tag);
            match canonical(address).ip() {
                IpAddr::V4(ip) => {
                    payload.put_u8(6);
                    payload.put_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    payload.put_u8(18);
                    payload.put_slice(&ip.octets());
                }
            }
            payload.put_u16(address.port());
        }
    }
}

/// Four or sixteen octets of address, two of port; port 0 is none.
fn address(value: &[u8]) -> Result<SocketAddr, FrameError> {
    let (ip, port) = value.split_last_chunk::<2>().ok_or(FrameError::Payload)?;
    let ip = if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        IpAddr::V4(Ipv4Addr::from(octets))
    } else {
        let octets = <[u8; 16]>::try_from(ip).map_err(|_| FrameError::Payload)?;
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    match u16::from_be_bytes(*port) {
        0 => Err(FrameError::Payload),
        port => Ok(canonical(SocketAddr::new(ip, port))),
    }
}
