//! Queries of the admin pages: `name=value&name=value`, with what is special percent-encoded.

use std::fmt;

use anyhow::{Context as _, Result};

/// A value as it is written into a query.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0.as_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

/// Names and decoded values.
///
/// # Errors
/// Where there is no value, or it is not what percent-encoding makes; the message names it.
pub(crate) fn pairs(query: &str) -> Result<Vec<(&str, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) =
                pair.split_once('=').with_context(|| format!("parameter {pair:?} has no value"))?;
            Ok((name, decoded(name, value)?))
        })
        .collect()
}

/// A value without its percent signs.
///
/// # Errors
/// Where that is no text.
pub(crate) fn decoded(name: &str, value: &str) -> Result<String> {
    let bad = || format!("{name} is not percent-encoded as it should be: {value:?}");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (high, low) = (digit().with_context(bad)?, digit().with_context(bad)?);
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).ok().with_context(bad)
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
