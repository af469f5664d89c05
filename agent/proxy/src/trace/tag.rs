//! What configuration wants spans to say besides.

use std::env;

use http::{HeaderMap, HeaderName};
use thiserror::Error;
use undermesh_telemetry::Attribute;

/// Longest value.
const MAX_VALUE: usize = 256;

/// Why a text is no tag.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not of the form NAME=literal:VALUE, NAME=header:HEADER or NAME=environment:VARIABLE"
)]
pub struct TagError(String);

/// An attribute with a fixed value, or with that of a request's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomTag {
    name: String,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Fixed(String),
    Header(HeaderName),
}

impl CustomTag {
    /// Reads `NAME=literal:VALUE`, `NAME=header:HEADER` or `NAME=environment:VARIABLE` (of the agent). A variable that
    /// is not set gives an empty value, which is left out.
    ///
    /// # Errors
    /// Where the text is something else.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let malformed = || TagError(text.to_owned());
        let (name, source) = text.split_once('=').ok_or_else(malformed)?;
        let (kind, value) = source.split_once(':').ok_or_else(malformed)?;
        if name.is_empty() || value.is_empty() {
            return Err(malformed());
        }
        let source = match kind {
            "literal" => Source::Fixed(bounded(value, MAX_VALUE).to_owned()),
            "environment" => {
                Source::Fixed(bounded(&env::var(value).unwrap_or_default(), MAX_VALUE).to_owned())
            }
            "header" => Source::Header(value.parse().map_err(|_| malformed())?),
            _ => return Err(malformed()),
        };
        Ok(Self { name: name.to_owned(), source })
    }

    /// The attribute, if there is one for this request.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Attribute> {
        let value = match &self.source {
            Source::Fixed(value) => value,
            Source::Header(name) => bounded(headers.get(name)?.to_str().ok()?, MAX_VALUE),
        };
        (!value.is_empty()).then(|| (self.name.clone().into(), value.into()))
    }
}

/// The beginning of a text, no longer than that in bytes, and whole characters.
fn bounded(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_fixed_or_of_a_header() {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", "a".parse().unwrap());
        let of = |text| CustomTag::parse(text).map(|tag| tag.of(&headers));
        assert_eq!(of("zone=literal:b:c"), Ok(Some(("zone".into(), "b:c".into()))));
        assert_eq!(of("tenant=header:X-Tenant"), Ok(Some(("tenant".into(), "a".into()))));
        assert_eq!(of("tenant=header:x-other"), Ok(None));
        assert_eq!(of("zone=environment:NO_SUCH_VARIABLE_IS_SET"), Ok(None));
        for bad in
            ["", "zone", "zone=b", "=literal:a", "zone=literal:", "zone=file:a", "zone=header:a b"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
