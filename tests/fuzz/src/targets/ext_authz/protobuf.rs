//! A reader of protocol buffers as their documentation has them, and no more: numbers, and what has a length. And a
//! writer of the same, for seeds.

/// Messages and groups within one another that are read.
const DEPTH: usize = 100;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Other,
}

impl<'a> Value<'a> {
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }
}

/// The fields of a message that is so deep within others, in their order; `None` for what is no message.
pub(super) fn fields(mut bytes: &[u8], depth: usize) -> Option<Vec<(u64, Value<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (number, kind) = key(&mut bytes)?;
        fields.push((number, value(&mut bytes, number, kind, depth)?));
    }
    Some(fields)
}

fn key(bytes: &mut &[u8]) -> Option<(u64, u64)> {
    let key = varint(bytes)?;
    (key <= u64::from(u32::MAX) && key >> 3 > 0).then_some((key >> 3, key & 7))
}

fn value<'a>(bytes: &mut &'a [u8], number: u64, kind: u64, depth: usize) -> Option<Value<'a>> {
    if depth >= DEPTH {
        return None;
    }
    Some(match kind {
        0 => Value::Number(varint(bytes)?),
        1 => taken(bytes, 8).map(|_| Value::Other)?,
        2 => {
            let length = varint(bytes)?;
            Value::Bytes(taken(bytes, usize::try_from(length).ok()?)?)
        }
        // A group ends where its number does.
        3 => loop {
            let (inner, kind) = key(bytes)?;
            if kind == 4 {
                break (inner == number).then_some(Value::Other)?;
            }
            value(bytes, inner, kind, depth + 1)?;
        },
        5 => taken(bytes, 4).map(|_| Value::Other)?,
        _ => return None,
    })
}

fn taken<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let byte = *taken(bytes, 1)?.first()?;
        // Of 64 bits, the tenth byte has one.
        if place == 9 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (place * 7);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A field with a number.
pub(super) fn numbered(field: u8, mut number: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field that has a length.
pub(super) fn sized(field: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut bytes = numbered(0, content.len() as u64);
    bytes[0] = field << 3 | 2;
    bytes.extend_from_slice(content);
    bytes
}
