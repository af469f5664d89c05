//! Matches as their documentation has them, read word by word.

use std::{cell::RefCell, collections::HashMap};

use regex::bytes::Regex;
use undermesh_model::traffic::{Dialect, HttpMatch, PathMatch, TextPattern};

use super::model::Asked;

/// Expressions that are remembered: inputs have few words to make them of.
const MAX_REMEMBERED: usize = 10_000;

thread_local! {
    static REMEMBERED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

fn whole(pattern: &str) -> Option<Regex> {
    part(pattern)?;
    part(&format!(r"\A(?:{pattern})\z"))
}

fn part(pattern: &str) -> Option<Regex> {
    REMEMBERED.with_borrow_mut(|remembered| {
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        let compile = || Regex::new(pattern).ok();
        remembered.entry(pattern.to_owned()).or_insert_with(compile).clone()
    })
}

/// Whether all patterns of a match are patterns.
pub(super) fn compiles(one: &HttpMatch) -> bool {
    let texts = [&one.scheme, &one.method, &one.authority].into_iter().flatten();
    let lists = one.headers.iter().chain(&one.without_headers).chain(&one.query);
    let path = match &one.path {
        Some(PathMatch::Regex(pattern)) => whole(pattern).is_some(),
        _ => true,
    };
    path && texts.chain(lists.map(|(_, pattern)| pattern)).all(|pattern| match pattern {
        TextPattern::Regex(pattern) => whole(pattern).is_some(),
        _ => true,
    })
}

/// Whether a match is about a request.
pub(super) fn matches(one: &HttpMatch, hosts: &[String], dialect: Dialect, asked: &Asked) -> bool {
    let text = |pattern: &Option<TextPattern>, value: &str| {
        pattern.as_ref().is_none_or(|pattern| text_matches(pattern, value))
    };
    path_matches(one, &asked.path)
        && text(&one.method, asked.method)
        && text(&one.scheme, asked.scheme)
        && text(&one.authority, &asked.authority)
        && one
            .headers
            .iter()
            .all(|(name, pattern)| header(name, pattern, dialect, asked) == Some(true))
        && one.without_headers.iter().all(|(name, pattern)| {
            match header(name, pattern, dialect, asked) {
                Some(found) => !found,
                // As if it were empty, unless it is asked whether it is there.
                None => *pattern == TextPattern::Present || !text_matches(pattern, ""),
            }
        })
        && one.query.iter().all(|(name, pattern)| {
            parameter(name, asked.query.as_deref())
                .is_some_and(|value| text_matches(pattern, value))
        })
        && one.source_labels.iter().all(|(label, value)| asked.labels.get(label) == Some(value))
        && one.source_namespace.as_ref().is_none_or(|namespace| namespace == asked.namespace)
        && (hosts.is_empty() || hosts.iter().any(|host| host_matches(host, &asked.authority)))
}

fn path_matches(one: &HttpMatch, path: &str) -> bool {
    let fold = |text: &str| {
        if one.ignore_path_case { text.to_ascii_lowercase() } else { text.to_owned() }
    };
    match &one.path {
        None => true,
        Some(PathMatch::Exact(wanted)) => fold(path) == fold(wanted),
        Some(PathMatch::Prefix(wanted)) => fold(path).starts_with(&fold(wanted)),
        Some(PathMatch::Elements(wanted)) => {
            let wanted = wanted.trim_end_matches('/');
            path == wanted || path.starts_with(&format!("{wanted}/"))
        }
        Some(PathMatch::Regex(pattern)) => {
            whole(pattern).is_some_and(|pattern| pattern.is_match(path.as_bytes()))
        }
    }
}

fn text_matches(pattern: &TextPattern, value: &str) -> bool {
    match pattern {
        TextPattern::Exact(wanted) => value == wanted,
        TextPattern::Prefix(wanted) => value.starts_with(wanted.as_str()),
        TextPattern::Regex(pattern) => {
            whole(pattern).is_some_and(|pattern| pattern.is_match(value.as_bytes()))
        }
        TextPattern::Present => true,
    }
}

/// Whether a header matches; `None` where it is missing.
fn header(name: &str, pattern: &TextPattern, dialect: Dialect, asked: &Asked) -> Option<bool> {
    let values = asked.headers.iter().filter(|(found, _)| *found == name);
    let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
    if values.is_empty() {
        return None;
    }
    Some(match dialect {
        Dialect::Gateway => values.iter().any(|value| text_matches(pattern, value)),
        Dialect::Istio => text_matches(pattern, &values.join(",")),
    })
}

fn parameter<'a>(name: &str, query: Option<&'a str>) -> Option<&'a str> {
    for parameter in query?.split('&') {
        let (found, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if found == name {
            return Some(value);
        }
    }
    None
}

fn host_matches(pattern: &str, authority: &str) -> bool {
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    let port = authority.rfind(':').filter(|at| {
        let (host, port) = (&authority[..*at], &authority[at + 1..]);
        port.chars().all(|digit| digit.is_ascii_digit())
            && (host.ends_with(']') || !host.contains(':'))
    });
    let host = port.map_or(authority, |at| &authority[..at]).to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == pattern,
    }
}

/// `text` with all matches of `pattern` replaced; `None` where the pattern or the replacement is none.
pub(super) fn substituted(pattern: &str, replacement: &str, text: &str) -> Option<String> {
    let pattern = part(pattern)?;
    let mut parts: Vec<Result<char, usize>> = Vec::new();
    let mut letters = replacement.chars();
    while let Some(letter) = letters.next() {
        parts.push(if letter != '\\' {
            Ok(letter)
        } else {
            match letters.next()? {
                '\\' => Ok('\\'),
                digit => Err(usize::try_from(digit.to_digit(10)?).ok()?),
            }
        });
    }
    if parts.iter().any(|part| part.is_err_and(|group| group >= pattern.captures_len())) {
        return None;
    }
    let replaced = pattern.replace_all(text.as_bytes(), |found: &regex::bytes::Captures<'_>| {
        let mut out = Vec::new();
        for part in &parts {
            match part {
                Ok(letter) => out.extend_from_slice(letter.to_string().as_bytes()),
                Err(group) => {
                    out.extend_from_slice(found.get(*group).map_or(b"", |one| one.as_bytes()));
                }
            }
        }
        out
    });
    Some(String::from_utf8_lossy(&replaced).into_owned())
}
