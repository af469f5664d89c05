//! Queries of the admin pages: `name=value&name=value`, with what is special percent-encoded.

use std::fmt;

use anyhow::{Context as _, Result};

/// A value as it is written into a query, so that it can end neither itself nor the request.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// Names and values, as they are written.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = Result<(&str, &str)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        pair.split_once('=').with_context(|| format!("parameter {pair:?} has no value"))
    })
}

/// Names and decoded values.
///
/// # Errors
/// Where there is no value, or it is not what [`Escaped`] writes; the message names it.
pub(crate) fn pairs(query: &str) -> Result<Vec<(&str, String)>> {
    parameters(query)
        .map(|pair| {
            let (name, value) = pair?;
            let (bytes, is_sound) = decode(value);
            let text = String::from_utf8(bytes).ok().filter(|_| is_sound);
            let text = text.with_context(|| {
                format!("{name} is not percent-encoded as it should be: {value:?}")
            })?;
            Ok((name, text))
        })
        .collect()
}

/// Undoes [`Escaped`]; what is not escaped so stays as it is.
pub(crate) fn unescape(value: &str) -> String {
    String::from_utf8_lossy(&decode(value).0).into_owned()
}

/// The bytes that are meant, and whether every percent sign has its two digits.
fn decode(value: &str) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(value.len());
    let mut is_sound = true;
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| {
            let digit = char::from(*after.get(at)?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
        } else if let (Some(high), Some(low)) = (digit(0), digit(1)) {
            bytes.push(high << 4 | low);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            is_sound = false;
        }
    }
    (bytes, is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for value in ["info,undermesh_proxy=debug", "a&b=c%", "5 m", "ä/?#"] {
            let query = format!("level={}&for=1", Escaped(value));
            let read = pairs(&query).unwrap();
            assert_eq!(read, [("level", value.to_owned()), ("for", "1".to_owned())]);
        }
    }

    #[test]
    fn what_was_not_escaped_is_left_as_it_is_where_nobody_minds() {
        for (value, meant) in [("50%", "50%"), ("a%2", "a%2"), ("%zz%41", "%zzA"), ("a+b", "a+b")] {
            assert_eq!(unescape(value), meant);
        }
    }

    #[test]
    fn what_is_broken_is_named() {
        for (query, told) in [
            ("level", "\"level\" has no value"),
            ("a=%", "a is not"),
            ("a=%fg", "a is not"),
            ("a=%ff", "a is not"),
        ] {
            let error = format!("{:#}", pairs(query).unwrap_err());
            assert!(error.contains(told), "{query}: {error}");
        }
    }
}
