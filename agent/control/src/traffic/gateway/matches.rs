//! `matches` of HTTPRoute: which requests a rule is about. Headers are GRPCRoute's as well.

use serde::Deserialize;
use undermesh_model::traffic::{HttpMatch, PathMatch, TextPattern};

use super::{cursor::Cursor, headers::Names, values};
use crate::traffic::common;

/// Matches of one rule.
pub(super) const MAX_MATCHES: usize = 64;
const MAX_HEADERS: usize = 16;
const MAX_PATH: usize = 1024;
const MAX_PARAMETER: usize = 1024;

/// `HTTPRouteMatch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Match {
    path: Option<PathField>,
    headers: Vec<Entry>,
    query_params: Vec<Entry>,
    method: Option<Method>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathField {
    #[serde(rename = "type")]
    kind: PathType,
    value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum PathType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// `HTTPHeaderMatch`, `HTTPQueryParamMatch`, `GRPCHeaderMatch`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "type", default)]
    kind: TextType,
    name: String,
    value: String,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum TextType {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

impl Match {
    /// Whether it is about a prefix of paths.
    pub(super) fn is_prefix(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.kind == PathType::PathPrefix)
    }

    /// Reads a match.
    pub(super) fn read(cursor: &mut Cursor<'_, '_>, read: &Self) -> HttpMatch {
        let path = read.path.as_ref();
        let path = path.map(|path| cursor.within("path", |at| path.read(at)));
        HttpMatch {
            path: Some(path.unwrap_or_else(everything)),
            method: read.method.map(|method| TextPattern::Exact(method.name().to_owned())),
            headers: header_matches(&read.headers, cursor),
            query: query_matches(&read.query_params, cursor),
            ..HttpMatch::default()
        }
    }
}

/// The default: the prefix of all paths.
pub(super) fn everything() -> PathMatch {
    PathMatch::Elements("/".to_owned())
}

impl PathField {
    fn read(&self, cursor: &mut Cursor<'_, '_>) -> PathMatch {
        let value = self.value.as_deref().unwrap_or("/");
        if value.len() > MAX_PATH {
            let message = format!("is longer than {MAX_PATH} bytes");
            cursor.error(&["value"], &message, "shorten it");
        }
        match self.kind {
            PathType::RegularExpression => {
                check_pattern(value, "value", cursor);
                PathMatch::Regex(value.to_owned())
            }
            PathType::Exact => {
                check_path(value, cursor);
                PathMatch::Exact(value.to_owned())
            }
            PathType::PathPrefix => {
                check_path(value, cursor);
                // A slash at the end is ignored.
                let short = value.strip_suffix('/').filter(|short| !short.is_empty());
                PathMatch::Elements(short.unwrap_or(value).to_owned())
            }
        }
    }
}

/// What the API refuses of paths: all that a client could write in several ways.
fn check_path(value: &str, cursor: &mut Cursor<'_, '_>) {
    let remedy = "write the path as clients send it, normalized";
    if !value.starts_with('/') {
        cursor.error(&["value"], "does not begin with \"/\"", remedy);
    }
    for part in ["//", "/./", "/../", "%2f", "%2F"] {
        if value.contains(part) {
            cursor.error(&["value"], &format!("contains {part:?}"), remedy);
        }
    }
    for end in ["/.", "/.."] {
        if value.ends_with(end) {
            cursor.error(&["value"], &format!("ends with {end:?}"), remedy);
        }
    }
    if !has_path_letters(value.as_bytes()) {
        cursor.error(&["value"], "has letters that no path has", remedy);
    }
}

/// The letters of RFC 3986, `pchar` and `/`; `%` with two digits.
fn has_path_letters(mut rest: &[u8]) -> bool {
    loop {
        rest = match rest {
            [] => return true,
            [b'%', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
            [byte, after @ ..]
                if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) =>
            {
                after
            }
            _ => return false,
        }
    }
}

/// Reads matches of headers, names in lower case.
pub(super) fn header_matches(
    entries: &[Entry],
    cursor: &mut Cursor<'_, '_>,
) -> Vec<(String, TextPattern)> {
    let mut read = Vec::new();
    let mut names = Names::default();
    cursor.each("headers", entries, MAX_HEADERS, |cursor, entry| {
        let name = values::header_name(&entry.name, &["name"], cursor);
        values::header_value(&entry.value, cursor);
        if names.is_first(&entry.name, &name, cursor) {
            read.push((name, entry.pattern(cursor)));
        }
    });
    read
}

fn query_matches(entries: &[Entry], cursor: &mut Cursor<'_, '_>) -> Vec<(String, TextPattern)> {
    let mut read = Vec::new();
    let mut names = Names::default();
    cursor.each("queryParams", entries, MAX_HEADERS, |cursor, entry| {
        // The API takes the same letters as for headers, but heeds their case.
        values::header_name(&entry.name, &["name"], cursor);
        if entry.value.is_empty() || entry.value.len() > MAX_PARAMETER {
            let message = format!("has to have 1 to {MAX_PARAMETER} bytes");
            cursor.error(&["value"], &message, "correct the value");
        }
        if names.is_first(&entry.name, &entry.name, cursor) {
            read.push((entry.name.clone(), entry.pattern(cursor)));
        }
    });
    read
}

impl Entry {
    fn pattern(&self, cursor: &mut Cursor<'_, '_>) -> TextPattern {
        match self.kind {
            TextType::Exact => TextPattern::Exact(self.value.clone()),
            TextType::RegularExpression => {
                check_pattern(&self.value, "value", cursor);
                TextPattern::Regex(self.value.clone())
            }
        }
    }
}

/// Refuses what is no regular expression.
pub(super) fn check_pattern(pattern: &str, field: &str, cursor: &mut Cursor<'_, '_>) {
    if let Some(why) = common::pattern_error(pattern) {
        cursor.error(&[field], &why, "write a regular expression in RE2's syntax");
    }
}
