//! Names of traces and spans: random bytes, of which not all are zero, written in lower-case hexadecimal.

use std::fmt;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

macro_rules! id {
    ($(#[$about:meta])* $name:ident, $bytes:literal) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The id of these bytes, unless all are zero.
            pub fn new(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// Reads exactly as many lower-case hexadecimal digits as there are.
            pub fn from_hex(text: &[u8]) -> Option<Self> {
                if text.len() != $bytes * 2 {
                    return None;
                }
                let mut bytes = [0; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                    *byte = digit(pair[0])? << 4 | digit(pair[1])?;
                }
                Self::new(bytes)
            }

            /// Its bytes, as they travel.
            pub fn bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Its digits, as headers have them.
            pub fn digits(&self) -> [u8; $bytes * 2] {
                let mut digits = [0; $bytes * 2];
                for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 0xf)];
                }
                digits
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// Name of a trace.
    TraceId,
    16
);

id!(
    /// Name of a span within its trace.
    SpanId,
    8
);

/// A trace's name as logs have it: as its client writes it, which may be with its last 16 digits only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceName {
    id: TraceId,
    short: bool,
}

impl TraceName {
    /// That of a trace; a short one has 16 digits.
    pub fn new(id: TraceId, short: bool) -> Self {
        Self { id, short }
    }

    /// Its digits, in a place for them.
    pub fn digits<'a>(&self, digits: &'a mut [u8; 32]) -> &'a str {
        *digits = self.id.digits();
        let digits = if self.short { &digits[16..] } else { &digits[..] };
        str::from_utf8(digits).unwrap_or_default()
    }
}

impl From<TraceId> for TraceName {
    fn from(id: TraceId) -> Self {
        Self::new(id, false)
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        let text = "00f067aa0ba902b7";
        assert_eq!(SpanId::from_hex(text.as_bytes()).unwrap().to_string(), text);
        for bad in [
            "0000000000000000",
            "00F067AA0BA902B7",
            "00f067aa0ba902b",
            "00f067aa0ba902b7a",
            "00f067aa0ba902bg",
        ] {
            assert_eq!(SpanId::from_hex(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(TraceId::new([0; 16]), None);
    }
}
