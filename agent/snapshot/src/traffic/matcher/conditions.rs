//! What an alternative asks for, told to people and to programs. Nothing is decided by it.

use std::{fmt, ops::Not as _};

use serde::{Deserialize, Serialize};

use super::{HostPattern, PathMatcher, RequestMatch, text::TextMatcher};

/// One of the things that have to hold all together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Of what: `path`, `method`, `scheme`, `authority`, `host`, `header`, `query`, and of the client `label` and
    /// `namespace`.
    pub of: String,
    /// Of a header, a parameter of the query, a label; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `exact`, `prefix`, `elements` (the path or one below it), `regex`, `present`, `exactIgnoringCase`,
    /// `prefixIgnoringCase`, `anyOf`.
    pub how: String,
    /// What it is compared with; empty for `present`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// It must not be so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not: bool,
}

fn is_false(value: &bool) -> bool {
    value.not()
}

impl Condition {
    fn new(of: &str, name: &str, how: &str, value: &str) -> Self {
        let [of, name, how, value] = [of, name, how, value].map(str::to_owned);
        Self { of, name, how, value, not: false }
    }

    fn of_text(of: &str, name: &str, matcher: &TextMatcher) -> Self {
        let (how, value) = match matcher {
            TextMatcher::Exact(text) => ("exact", text.as_str()),
            TextMatcher::Prefix(text) => ("prefix", text.as_str()),
            TextMatcher::Regex(regex) => ("regex", regex.source()),
            TextMatcher::Present => ("present", ""),
        };
        Self::new(of, name, how, value)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, name, how, value, not } = self;
        match of.as_str() {
            "query" => write!(f, "query parameter {name} ")?,
            "label" => write!(f, "the client's label {name} ")?,
            "namespace" => f.write_str("the client's namespace ")?,
            of if name.is_empty() => write!(f, "{of} ")?,
            of => write!(f, "{of} {name} ")?,
        }
        match (how.as_str(), *not) {
            ("present", false) => f.write_str("is there"),
            ("present", true) => f.write_str("is not there"),
            ("prefix", false) => write!(f, "begins with {value}"),
            ("prefix", true) => write!(f, "does not begin with {value}"),
            ("regex", false) => write!(f, "matches {value}"),
            ("regex", true) => write!(f, "does not match {value}"),
            ("elements", _) => write!(f, "is {value} or below it"),
            ("exactIgnoringCase", _) => write!(f, "is {value} in any case"),
            ("prefixIgnoringCase", _) => write!(f, "begins with {value} in any case"),
            (_, true) => write!(f, "is not {value}"),
            _ => write!(f, "is {value}"),
        }
    }
}

impl RequestMatch {
    /// All that has to hold; nothing for every request.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        if !self.hosts.is_empty() {
            let hosts: Vec<&str> = self.hosts.iter().map(HostPattern::as_str).collect();
            let how = if hosts.len() == 1 { "exact" } else { "anyOf" };
            all.push(Condition::new("host", "", how, &hosts.join(" or ")));
        }
        all.extend(self.method.as_ref().map(|it| Condition::of_text("method", "", it)));
        let path = match &self.path {
            PathMatcher::Any { .. } => None,
            PathMatcher::Exact(path) => Some(("exact", path.as_str())),
            PathMatcher::ExactFolded(path) => Some(("exactIgnoringCase", path.as_str())),
            PathMatcher::Prefix(path) => Some(("prefix", path.as_str())),
            PathMatcher::PrefixFolded(path) => Some(("prefixIgnoringCase", path.as_str())),
            // Everything is below the root.
            PathMatcher::Elements(path) if path.is_empty() => None,
            PathMatcher::Elements(path) => Some(("elements", path.as_str())),
            PathMatcher::Regex(regex) => Some(("regex", regex.source())),
        };
        all.extend(path.map(|(how, value)| Condition::new("path", "", how, value)));
        all.extend(self.scheme.as_ref().map(|it| Condition::of_text("scheme", "", it)));
        all.extend(self.authority.as_ref().map(|it| Condition::of_text("authority", "", it)));
        all.extend(self.headers.iter().map(|header| {
            let (name, value, not) = header.parts();
            Condition { not, ..Condition::of_text("header", name, value) }
        }));
        all.extend(self.query.iter().map(|(name, it)| Condition::of_text("query", name, it)));
        let labels = self.source_labels.iter();
        all.extend(labels.map(|(name, value)| Condition::new("label", name, "exact", value)));
        let namespace = self.source_namespace.as_deref();
        all.extend(namespace.map(|it| Condition::new("namespace", "", "exact", it)));
        all
    }
}
