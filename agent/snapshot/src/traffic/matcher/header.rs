//! Patterns for headers.

use http::{HeaderMap, HeaderName};
use undermesh_model::traffic::{Dialect, TextPattern};

use super::text::{PatternError, TextMatcher};

/// A header, and what its value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderMatcher {
    name: HeaderName,
    value: TextMatcher,
    dialect: Dialect,
    inverted: bool,
}

impl HeaderMatcher {
    pub(super) fn new(
        name: &str,
        pattern: &TextPattern,
        dialect: Dialect,
    ) -> Result<Self, PatternError> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| PatternError::HeaderName(name.to_owned()))?;
        Ok(Self { name, value: TextMatcher::new(pattern)?, dialect, inverted: false })
    }

    /// The opposite: the header must not have such a value.
    pub(super) fn inverted(self) -> Self {
        Self { inverted: true, ..self }
    }

    /// Name, pattern, and whether it must not match.
    pub(super) fn parts(&self) -> (&str, &TextMatcher, bool) {
        (self.name.as_str(), &self.value, self.inverted)
    }

    /// The header's name.
    pub(super) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(super) fn matches(&self, headers: &HeaderMap) -> bool {
        self.has_value(headers) != self.inverted
    }

    fn has_value(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let Some(first) = values.next() else { return self.matches_nothing() };
        if self.dialect == Dialect::Gateway {
            let mut all = std::iter::once(first).chain(values);
            return all.any(|value| self.value.matches(value.as_bytes()));
        }
        // Envoy joins the values of a header that is there more than once.
        let mut rest = values.peekable();
        if rest.peek().is_none() {
            return self.value.matches(first.as_bytes());
        }
        let mut joined = first.as_bytes().to_vec();
        for value in rest {
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        self.value.matches(&joined)
    }

    /// A missing header is an empty one to `withoutHeaders`, unless that asks whether there is one
    /// (Istio sets `treat_missing_header_as_empty`).
    fn matches_nothing(&self) -> bool {
        self.inverted && self.value != TextMatcher::Present && self.value.matches(b"")
    }
}
