//! As much of HPACK (RFC 7541) as a client needs to say anything, and to read a status.

/// `cart` as a Huffman-coded string of 7 bits a byte at most: c 00100, a 00011, r 101100, t 01001.
pub(in crate::tests::http) const HUFFMAN_AUTHORITY: [u8; 3] =
    [0b0010_0000, 0b1110_1100, 0b0100_1111];

/// A field of the static or dynamic table.
pub(in crate::tests::http) fn indexed(index: u8) -> Vec<u8> {
    assert!(index < 127, "one byte");
    vec![0x80 | index]
}

/// A length and a string of so many bytes.
fn string(text: &[u8]) -> Vec<u8> {
    let mut string = integer(text.len(), 7);
    string.extend(text);
    string
}

/// A number whose first byte has room for so many bits.
fn integer(mut number: usize, bits: u32) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if number < most {
        return vec![number as u8];
    }
    let mut bytes = vec![most as u8];
    number -= most;
    while number >= 128 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A literal field of a kind: 0 leaves the table alone, 0x10 does so for ever, 0x40 adds to it.
pub(in crate::tests::http) fn literal(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![kind];
    field.extend(string(name));
    field.extend(string(value));
    field
}

/// A field.
pub(in crate::tests::http) fn field(name: &str, value: &str) -> Vec<u8> {
    literal(0, name.as_bytes(), value.as_bytes())
}

/// Fields in their order.
pub(in crate::tests::http) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The status that a block begins with; 0 for one that is written in a way not known here.
pub(super) fn status(block: &[u8]) -> u16 {
    // Sizes of the table may come first.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(0);
    match &block[start..] {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x08 | 0x48, length, rest @ ..] if length & 0x80 != 0 => {
            digits(&rest[..usize::from(length & 0x7f)])
        }
        [0x08 | 0x48, 3, rest @ ..] => {
            rest[..3].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => 0,
    }
}

/// Three digits in the Huffman code: 0 to 2 have five bits, the others six, from 25 on.
fn digits(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |sum, bit| sum << 1 | bit);
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = number(&bits[at..at + 5]);
        let (digit, length) = match short {
            0..=2 => (short, 5),
            _ => (number(&bits[at..at + 6]) - 25 + 3, 6),
        };
        value = value * 10 + digit;
        at += length;
    }
    value
}

#[test]
fn a_status_is_read_however_it_is_written() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8d]), 404);
    assert_eq!(status(b"\x48\x03431"), 431);
    // 4 3 1: 011010 011001 00001, and ones.
    assert_eq!(status(&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111]), 431);
}
