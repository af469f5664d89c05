//! Patterns for paths.

use undermesh_model::traffic::{Dialect, PathMatch};

use super::text::{FullRegex, PatternError};

/// A pattern for paths, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathMatcher {
    /// Any path. What is replaced is the first slash where Istio rewrites "the prefix" without
    /// having matched one: its route is then about the prefix `/`.
    Any { replaces: usize },
    /// The whole path.
    Exact(String),
    /// The whole path, in any case; kept in lower case.
    ExactFolded(String),
    /// Its beginning.
    Prefix(String),
    /// Its beginning, in any case; kept in lower case.
    PrefixFolded(String),
    /// Its first elements; without a slash at the end.
    Elements(String),
    /// The whole path.
    Regex(Box<RegexPath>),
}

/// An expression for the whole path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegexPath(FullRegex);

impl RegexPath {
    /// As it was written.
    pub(super) fn source(&self) -> &str {
        self.0.source()
    }

    /// What every path begins with that it matches; may be empty.
    pub(crate) fn start(&self) -> &str {
        self.0.start()
    }
}

impl PathMatcher {
    pub(super) fn new(
        pattern: Option<&PathMatch>,
        ignore_case: bool,
        dialect: Dialect,
    ) -> Result<Self, PatternError> {
        Ok(match pattern {
            None => Self::Any { replaces: usize::from(dialect == Dialect::Istio) },
            Some(PathMatch::Exact(text)) if ignore_case => {
                Self::ExactFolded(text.to_ascii_lowercase())
            }
            Some(PathMatch::Exact(text)) => Self::Exact(text.clone()),
            Some(PathMatch::Prefix(text)) if ignore_case => {
                Self::PrefixFolded(text.to_ascii_lowercase())
            }
            Some(PathMatch::Prefix(text)) => Self::Prefix(text.clone()),
            Some(PathMatch::Elements(text)) => {
                Self::Elements(text.trim_end_matches('/').to_owned())
            }
            Some(PathMatch::Regex(pattern)) => {
                Self::Regex(Box::new(RegexPath(FullRegex::new(pattern)?)))
            }
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any { .. } => true,
            Self::Exact(wanted) => path == wanted,
            Self::ExactFolded(wanted) => path.eq_ignore_ascii_case(wanted),
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::PrefixFolded(prefix) => {
                let start = path.as_bytes().get(..prefix.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            Self::Elements(prefix) => {
                let rest = path.strip_prefix(prefix.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.0.matches(path.as_bytes()),
        }
    }

    /// How many bytes of a path that matches the pattern was about.
    pub(crate) fn matched_len(&self, path: &str) -> usize {
        match self {
            Self::Any { replaces } => path.bytes().take(*replaces).filter(|c| *c == b'/').count(),
            Self::Prefix(prefix) | Self::PrefixFolded(prefix) | Self::Elements(prefix) => {
                prefix.len()
            }
            Self::Exact(_) | Self::ExactFolded(_) | Self::Regex(_) => path.len(),
        }
    }
}
