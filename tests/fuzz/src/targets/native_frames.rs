//! The native wire's frames, as a peer sends them (`docs/reference/wire.md`).

use std::net::{IpAddr, SocketAddr};

use undermesh_proxy::fuzzing::native::read;

use crate::source::{Pieces, Source};

/// Headers of frames.
pub(super) const DICTIONARY: &[&[u8]] = &[
    &[1, 0, 0, 17],
    &[2, 0, 0, 0],
    &[3, 0, 0, 2],
    &[4, 0, 0, 5],
    &[4, 0, 0xff, 0xfc],
    &[5, 0, 0, 0],
    &[6, 0, 0, 0],
    &[7, 0, 0, 4],
    &[99, 1, 0, 3],
    &[1, 6],
    &[2, 18],
    &[128, 0],
    &[0, 80],
    b"policy_denied",
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut pieces = Pieces::new(source.byte());
    let limit = 1 + usize::from(source.word());
    let bytes = source.rest();
    let whole = read(bytes, || usize::MAX, usize::MAX);
    let parts = read(bytes, || pieces.length(), limit);
    assert_eq!(whole.controls, parts.controls, "cut another way");
    assert_eq!(whole.error, parts.error, "cut another way");
    assert_eq!(whole.between_frames, parts.between_frames, "cut another way");
    if whole.error.is_none() {
        assert_eq!(whole.data, parts.data, "cut another way");
        assert_eq!(whole.consumed, bytes.len());
    }
    for (said, written) in &whole.controls {
        let again = read(written, || 3, 1);
        assert_eq!(again.controls, [(said.clone(), written.clone())], "written and read again");
        assert!(again.between_frames);
    }
    let naive = naive(bytes);
    assert_eq!(whole.error.is_some(), naive.wrong, "a naive reader: {:?}", whole.error);
    let said: Vec<&str> = whole.controls.iter().map(|(said, _)| said.as_str()).collect();
    assert_eq!(said, naive.said, "a naive reader");
    if !naive.wrong {
        assert_eq!(whole.data, naive.data, "a naive reader");
    }
}

/// The page, read word by word.
#[derive(Default)]
struct Naive {
    said: Vec<String>,
    data: Vec<u8>,
    wrong: bool,
}

fn naive(mut rest: &[u8]) -> Naive {
    let mut naive = Naive::default();
    while let Some((header, after)) = rest.split_first_chunk::<4>() {
        let [kind, flags, high, low] = *header;
        let length = usize::from(high) << 8 | usize::from(low);
        let (known, most) = (matches!(kind, 1..=7), if kind == 4 { 65532 } else { 1024 });
        if length > most || flags != u8::from(!known) {
            naive.wrong = true;
            break;
        }
        let Some((payload, after)) = after.split_at_checked(length) else {
            if kind == 4 {
                naive.data.extend_from_slice(after);
            }
            break;
        };
        rest = after;
        if kind == 4 {
            naive.data.extend_from_slice(payload);
        } else if known {
            let Some(said) = control(kind, payload) else {
                naive.wrong = true;
                break;
            };
            naive.said.push(said);
        }
    }
    naive
}

fn control(kind: u8, payload: &[u8]) -> Option<String> {
    match (kind, payload) {
        (1, [1, fields @ ..]) => open(fields),
        (2, []) => Some("Accept".to_owned()),
        (3, [high, low, reason @ ..]) => {
            let status = u16::from_be_bytes([*high, *low]);
            let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
            let good = reason.len() <= 64 && reason.iter().all(plain);
            let reason =
                if good { String::from_utf8_lossy(reason).into_owned() } else { String::new() };
            Some(format!("Refuse(Refusal {{ status: {status}, reason: {reason:?} }})"))
        }
        (5, []) => Some("End".to_owned()),
        (6, []) => Some("Reset".to_owned()),
        (7, [a, b, c, d]) => {
            Some(format!("Close {{ sessions: {} }}", u32::from_be_bytes([*a, *b, *c, *d])))
        }
        _ => None,
    }
}

fn open(mut fields: &[u8]) -> Option<String> {
    let (mut clients, mut destinations) = (Vec::new(), Vec::new());
    while let [tag, length, rest @ ..] = fields {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        fields = rest;
        match tag {
            1 => clients.push(address(value)?),
            2 => destinations.push(address(value)?),
            128.. => {}
            _ => return None,
        }
    }
    let ([], [client], [destination]) = (fields, &clients[..], &destinations[..]) else {
        return None;
    };
    Some(format!("Open(Open {{ client: {client}, destination: {destination} }})"))
}

fn address(value: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = value.split_last_chunk::<2>()?;
    let ip: IpAddr = match ip.len() {
        4 => <[u8; 4]>::try_from(ip).ok()?.into(),
        16 => <[u8; 16]>::try_from(ip).ok()?.into(),
        _ => return None,
    };
    let port = u16::from_be_bytes(*port);
    (port != 0).then(|| SocketAddr::new(ip.to_canonical(), port))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let open = [1, 0, 0, 17, 1, 1, 6, 10, 0, 0, 1, 0x12, 0x67, 2, 6, 10, 0, 1, 1, 0x1f, 0x90];
    let six = [&[1, 0, 0, 41, 1, 1, 18][..], &[0xfd; 16], &[0, 80, 2, 18], &[0xfe; 16], &[0, 81]]
        .concat();
    let mapped = [
        &[1, 0, 0, 35, 1, 1, 18][..],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
        &[0, 80, 2, 6, 10, 0, 0, 2, 0, 81, 200, 2, 1, 2],
    ]
    .concat();
    let refuse = [&[3, 0, 0, 15, 1, 0x93][..], b"policy_denied"].concat();
    let session =
        [&open[..], &[4, 0, 0, 5], b"hello", &[4, 0, 0, 0], &[5, 0, 0, 0], &open, &[6, 0, 0, 0]]
            .concat();
    let answer = [&[2, 0, 0, 0][..], &[99, 1, 0, 3, 1, 2, 3], &[7, 0, 0, 4, 0, 0, 0, 9]].concat();
    let long = [&[4, 0, 0x10, 0][..], &[7; 4096]].concat();
    let frames = [open.to_vec(), six, mapped, refuse, session, answer, long];
    frames
        .iter()
        .zip(0_u8..)
        .map(|(frames, number)| [&[number, 0, number][..], frames].concat())
        .collect()
}
