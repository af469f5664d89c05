//! Patterns for text.

use std::sync::Arc;

use regex::bytes::Regex;
use thiserror::Error;
use undermesh_model::traffic::TextPattern;

use super::re2;

/// Why a match cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Not RE2, or too large.
    #[error("the regular expression {pattern:?} cannot be used: {why}")]
    Regex {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, on one line.
        why: String,
    },
    /// Not the name of a header.
    #[error("{0:?} is not the name of a header")]
    HeaderName(String),
}

/// A pattern for text, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TextMatcher {
    Exact(String),
    Prefix(String),
    Regex(FullRegex),
    Present,
}

impl TextMatcher {
    pub(super) fn new(pattern: &TextPattern) -> Result<Self, PatternError> {
        Ok(match pattern {
            TextPattern::Exact(text) => Self::Exact(text.clone()),
            TextPattern::Prefix(text) => Self::Prefix(text.clone()),
            TextPattern::Regex(pattern) => Self::Regex(FullRegex::new(pattern)?),
            TextPattern::Present => Self::Present,
        })
    }

    /// Whether a text that is there matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => text == wanted.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Regex(regex) => regex.matches(text),
            Self::Present => true,
        }
    }
}

/// RE2 for a whole text.
#[derive(Clone, Debug)]
pub(super) struct FullRegex {
    source: String,
    /// What every text begins with that it matches; may be empty.
    start: String,
    compiled: Arc<Regex>,
}

impl FullRegex {
    pub(super) fn new(source: &str) -> Result<Self, PatternError> {
        let (compiled, start) = re2::whole(source)?;
        Ok(Self {
            source: source.to_owned(),
            start: start.to_owned(),
            compiled: Arc::new(compiled),
        })
    }

    pub(super) fn start(&self) -> &str {
        &self.start
    }

    /// As it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for FullRegex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for FullRegex {}
