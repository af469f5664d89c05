//! Streams of configuration: what either side takes from bytes depends on the bytes alone, an object is taken under the name that
//! it has itself, and what is whole is read as it was written.

use bytes::Bytes;
use undermesh_control::{read_requests, read_responses};

use crate::source::Source;

const TYPE_URL: &[u8] = b"type.googleapis.com/undermesh.distribution.v1.Object";
const SERVICE: &[u8] = br#"{"kind":"Service","metadata":{"name":"cart","namespace":"shop"}}"#;
const NAME: &[u8] = b"Service/shop/cart";

pub(super) const DICTIONARY: &[&[u8]] = &[
    TYPE_URL,
    SERVICE,
    NAME,
    b"Service",
    b"Pod//x",
    // gzip of nothing.
    &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0, 0, 0, 0],
    &[1, 0, 0, 0],
    &[0x12],
    &[0x32],
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let cuts = source.word();
    let (flag, stream) = (source.flag(), source.rest());
    let pieces = cut(stream, cuts);
    if flag {
        let whole = read_requests([Bytes::copy_from_slice(stream)]);
        assert_eq!(whole, read_requests(pieces));
        return;
    }
    let whole = read_responses([Bytes::copy_from_slice(stream)]);
    assert_eq!(whole, read_responses(pieces));
    let (Ok(lines) | Err((lines, _))) = &whole;
    for line in lines {
        assert_eq!(line[1..].split('/').count(), 3, "{line}");
    }
    // What others have sent before does not change what is read.
    let good = response();
    let alone = read_responses([good.clone()]).expect("a good response");
    assert_eq!(alone, ["+Service/shop/cart"]);
    if let Ok(before) = whole
        && ends_with_a_message(stream)
    {
        let both = read_responses([Bytes::copy_from_slice(stream), good]);
        assert_eq!(both, Ok([before, alone].concat()));
    }
}

/// In pieces, of lengths that follow from a number.
fn cut(stream: &[u8], cuts: u16) -> Vec<Bytes> {
    let length = usize::from(cuts % 61) + 1;
    stream.chunks(length).map(Bytes::copy_from_slice).collect()
}

/// Whether no message is begun that is not ended.
fn ends_with_a_message(mut stream: &[u8]) -> bool {
    while let Some((prefix, rest)) = stream.split_first_chunk::<5>() {
        let [_, length @ ..] = prefix;
        let Some(after) = rest.get(u32::from_be_bytes(*length) as usize..) else { return false };
        stream = after;
    }
    stream.is_empty()
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut length = value.len();
    let mut field = vec![number << 3 | 2];
    while length > 0x7f {
        field.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(value);
    field
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// A response with one object.
fn response() -> Bytes {
    let object = [field(1, b"Service"), field(2, SERVICE)].concat();
    let any = [field(1, TYPE_URL), field(2, &object)].concat();
    let resource = [field(1, b"v"), field(2, &any), field(3, NAME)].concat();
    framed(&[field(1, b"7"), field(2, &resource), field(5, b"1")].concat()).into()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let removed = framed(&[field(1, b"8"), field(6, NAME), field(6, b"Pod/shop/x")].concat());
    let known = [field(1, NAME), field(2, b"v")].concat();
    let request = framed(&[field(2, TYPE_URL), field(3, b"*"), field(5, &known)].concat());
    let responses = [response().to_vec(), removed.clone(), [response().to_vec(), removed].concat()];
    let of = |flag: u8, stream: &Vec<u8>| [vec![0, 7, flag], stream.clone()].concat();
    let requests = [of(1, &request)];
    responses.iter().map(|stream| of(0, stream)).chain(requests).collect()
}
