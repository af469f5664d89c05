//! Takes frames out of a stream of bytes, however the bytes are cut.
//!
//! Pure and total: a peer chooses these bytes. What it may make the decoder hold is one frame that
//! is not DATA.

use bytes::BytesMut;

use super::frame::{Control, FrameError, HEADER, Header, Kind};

/// Where the decoder is between two calls.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What there is of the next header.
    header: [u8; HEADER],
    have: usize,
    frame: Option<Partial>,
}

/// A frame whose header has been read.
#[derive(Debug)]
struct Partial {
    kind: Option<Kind>,
    /// Octets of the payload that are still to come.
    left: usize,
    /// Those that have come, of a frame that is not DATA.
    payload: Vec<u8>,
}

/// What a call has done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Octets of the input that were taken.
    pub(crate) consumed: usize,
    /// The frame that ended the call. Data that was added by the same call came before it.
    pub(crate) control: Option<Control>,
}

impl Decoder {
    /// Takes from `input` until it is used up, a frame other than DATA is complete, or `data` holds
    /// `limit` octets. Payload of DATA frames is appended to `data`.
    pub(crate) fn decode(
        &mut self,
        input: &[u8],
        data: &mut BytesMut,
        limit: usize,
    ) -> Result<Decoded, FrameError> {
        let mut rest = input;
        loop {
            let Some(frame) = &mut self.frame else {
                if !self.take_header(&mut rest)? {
                    return Ok(Decoded { consumed: input.len() - rest.len(), control: None });
                }
                continue;
            };
            let mut count = frame.left.min(rest.len());
            if frame.kind == Some(Kind::Data) {
                count = count.min(limit.saturating_sub(data.len()));
            }
            let (part, after) = rest.split_at(count);
            match frame.kind {
                Some(Kind::Data) => data.extend_from_slice(part),
                Some(_) => frame.payload.extend_from_slice(part),
                None => {}
            }
            rest = after;
            frame.left -= count;
            let consumed = input.len() - rest.len();
            if frame.left > 0 {
                return Ok(Decoded { consumed, control: None });
            }
            if let Some(control) = self.finish()? {
                return Ok(Decoded { consumed, control: Some(control) });
            }
        }
    }

    /// True between two frames, where a connection may end.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.frame.is_none() && self.have == 0
    }

    /// Takes what there is of a header; true once one is complete.
    fn take_header(&mut self, rest: &mut &[u8]) -> Result<bool, FrameError> {
        let count = (HEADER - self.have).min(rest.len());
        let (part, after) = rest.split_at(count);
        self.header[self.have..self.have + count].copy_from_slice(part);
        self.have += count;
        *rest = after;
        if self.have < HEADER {
            return Ok(false);
        }
        self.have = 0;
        let Header { kind, length } = Header::decode(self.header)?;
        self.frame = Some(Partial { kind, left: length, payload: Vec::new() });
        Ok(true)
    }

    /// The frame whose payload is complete, unless it is DATA or one to be passed over.
    fn finish(&mut self) -> Result<Option<Control>, FrameError> {
        match self.frame.take() {
            Some(Partial { kind: Some(kind), payload, .. }) if kind != Kind::Data => {
                Control::decode(kind, &payload).map(Some)
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::{BufMut, Bytes};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        authority::canonical,
        native::{
            frame::{MAX_CONTROL, MAX_DATA, Refusal, header},
            open::Open,
        },
    };

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<std::net::IpAddr>(), 1u16..)
            .prop_map(|(ip, port)| canonical(SocketAddr::new(ip, port)))
    }

    fn control() -> impl Strategy<Value = Control> {
        prop_oneof![
            (address(), address())
                .prop_map(|(client, destination)| Control::Open(Open { client, destination })),
            Just(Control::Accept),
            (any::<u16>(), "[a-z_]{0,64}")
                .prop_map(|(status, reason)| Control::Refuse(Refusal { status, reason })),
            Just(Control::End),
            Just(Control::Reset),
            any::<u32>().prop_map(|sessions| Control::Close { sessions }),
        ]
    }

    fn data_frame(payload: &[u8]) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_slice(&header(Kind::Data, payload.len()));
        frame.put_slice(payload);
        frame.freeze()
    }

    /// Reads to the end or to the first mistake.
    fn survive(bytes: &[u8], piece: usize) {
        let mut decoder = Decoder::default();
        let mut data = BytesMut::new();
        for piece in bytes.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                data.clear();
                let Ok(decoded) = decoder.decode(rest, &mut data, MAX_DATA) else { return };
                rest = &rest[decoded.consumed..];
            }
        }
    }

    /// Everything in `bytes`, fed in pieces.
    fn read(
        bytes: &[u8],
        piece: usize,
        limit: usize,
    ) -> Result<(Vec<u8>, Vec<Control>), FrameError> {
        let mut decoder = Decoder::default();
        let (mut data, mut controls) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                let mut chunk = BytesMut::new();
                let decoded = decoder.decode(rest, &mut chunk, limit)?;
                assert!(chunk.len() <= limit);
                data.extend_from_slice(&chunk);
                controls.extend(decoded.control);
                rest = &rest[decoded.consumed..];
            }
        }
        assert!(decoder.is_between_frames());
        Ok((data, controls))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            frames in vec((control(), vec(any::<u8>(), 0..300)), 0..8),
            piece in 1usize..400,
            limit in 1usize..500,
        ) {
            let mut wire = Vec::new();
            let (mut payload, mut controls) = (Vec::new(), Vec::new());
            for (control, data) in frames {
                wire.extend_from_slice(&data_frame(&data));
                payload.extend_from_slice(&data);
                wire.extend_from_slice(&control.encode());
                controls.push(control);
            }
            prop_assert_eq!(read(&wire, piece, limit), Ok((payload, controls)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..4096), piece in 1usize..64) {
            survive(&bytes, piece);
        }

        #[test]
        fn damaged_frames_are_survived(
            control in control(),
            at in any::<prop::sample::Index>(),
            to: u8,
        ) {
            let mut frame = control.encode();
            let at = at.index(frame.len());
            frame[at] = to;
            survive(&frame, 7);
        }
    }

    #[test]
    fn a_full_frame_fills_its_records_exactly() {
        let frame = data_frame(&vec![7; MAX_DATA]);
        assert_eq!(frame.len() % (16 << 10), 0);
        assert_eq!(read(&frame, 1 << 20, usize::MAX).unwrap().0.len(), MAX_DATA);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_held() {
        for (kind, length) in [(Kind::Data, MAX_DATA + 1), (Kind::Open, MAX_CONTROL + 1)] {
            assert_eq!(read(&header(kind, length), 4, 9), Err(FrameError::TooLong));
        }
    }

    #[test]
    fn unknown_frames_are_passed_over_only_if_they_say_so() {
        let optional = [[99, 1, 0, 3].as_slice(), &[1, 2, 3], &Control::End.encode()].concat();
        assert_eq!(read(&optional, 2, 9), Ok((Vec::new(), vec![Control::End])));
        assert_eq!(read(&[99, 0, 0, 0], 4, 9), Err(FrameError::UnknownType));
        assert_eq!(read(&[Kind::End as u8, 1, 0, 0], 4, 9), Err(FrameError::Flags));
    }

    #[test]
    fn fields_of_open_are_passed_over_only_from_128_on() {
        let open = Open {
            client: "10.0.0.1:4711".parse().unwrap(),
            destination: "[fd00::1]:80".parse().unwrap(),
        };
        let mut payload = BytesMut::new();
        open.encode(&mut payload);
        let with = |field: &[u8]| Open::decode(&[&payload, field].concat());
        assert_eq!(with(&[]), Ok(open));
        assert_eq!(with(&[128, 2, 0, 0]), Ok(open));
        for bad in [&[3, 0][..], &[128], &[128, 2, 0], &[1, 6, 10, 0, 0, 1, 0, 80]] {
            assert_eq!(with(bad), Err(FrameError::Payload), "{bad:?}");
        }
        payload[0] = 2;
        assert_eq!(Open::decode(&payload), Err(FrameError::Payload));
    }

    #[test]
    fn payloads_that_do_not_belong_are_refused() {
        for (kind, length) in
            [(Kind::Accept, 1), (Kind::End, 1), (Kind::Close, 3), (Kind::Refuse, 1)]
        {
            let frame = [&header(kind, length)[..], &vec![0; length]].concat();
            assert_eq!(read(&frame, 9, 9), Err(FrameError::Payload), "{kind:?}");
        }
    }
}
