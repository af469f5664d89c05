//! How an AuthorizationPolicy says which paths it means.

use super::TextMatch;

const ONE: &str = "{*}";
const ANY: &str = "{**}";
/// Bytes of a path's segment (RFC 3986, `pchar`).
const LITERAL: &[u8] = b"-._~%!$&'()+,;:@=";

/// One entry of `paths`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Exact, by prefix, by suffix or by presence.
    Text(TextMatch),
    /// With `{*}` or `{**}`.
    Template(PathTemplate),
}

/// A path whose segments may be left open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    segments: Vec<Segment>,
    /// It ends with a slash.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    /// `{*}`: one segment that is not empty.
    One,
    /// `{**}`: all the rest, nothing included.
    Any,
}

impl PathMatch {
    /// Reads an entry; `None` where it is a template that Istio refuses.
    ///
    /// Source: Istio, `pkg/config/security/security.go`, `CheckValidPathTemplate`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains(ONE) || text.contains(ANY) {
            return PathTemplate::parse(text).map(Self::Template);
        }
        let is_literal = !text.is_empty() && !text.contains(['{', '}']);
        is_literal.then(|| Self::Text(TextMatch::parse(text)))
    }

    /// Whether a path without a query matches.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => template.matches(path),
        }
    }
}

impl PathTemplate {
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('/').unwrap_or(text);
        let open = inner.ends_with('/');
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let segments: Option<Vec<_>> = inner.split('/').map(Segment::parse).collect();
        let segments = segments?;
        let rest = segments.iter().skip_while(|one| **one != Segment::Any).skip(1);
        let is_last = rest.into_iter().all(|one| matches!(one, Segment::Literal(_)));
        is_last.then_some(Self { segments, open })
    }

    fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let path = match (self.open, path.strip_suffix('/')) {
            (true, Some(path)) => path,
            (true, None) => return false,
            (false, _) => path,
        };
        let parts: Vec<&str> = path.split('/').collect();
        matches_segments(&self.segments, &parts)
    }
}

/// `{**}` is followed by nothing but literals, so that their number says where it ends.
fn matches_segments(segments: &[Segment], parts: &[&str]) -> bool {
    let Some(any) = segments.iter().position(|segment| *segment == Segment::Any) else {
        return segments.len() == parts.len() && all_match(segments, parts);
    };
    let (before, after) = (&segments[..any], &segments[any + 1..]);
    parts.len() > before.len() + after.len()
        && all_match(before, &parts[..before.len()])
        && all_match(after, &parts[parts.len() - after.len()..])
}

fn all_match(segments: &[Segment], parts: &[&str]) -> bool {
    segments.iter().zip(parts).all(|(segment, part)| segment.matches(part))
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        match text {
            ONE => Some(Self::One),
            ANY => Some(Self::Any),
            text => {
                let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || LITERAL.contains(&byte);
                let good = !text.is_empty() && text.bytes().all(is_literal);
                good.then(|| Self::Literal(text.to_owned()))
            }
        }
    }

    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == part,
            Self::One => !part.is_empty(),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_leave_one_or_all_further_segments_open() {
        for (pattern, path, matches) in [
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a/b/b/c", false),
            ("/a/{*}/c", "/a//c", false),
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/b/", false),
            ("/a/{*}/", "/a/b/", true),
            ("/a/{*}", "/a", false),
            ("/a/{**}", "/a/b/c/d", true),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}", "/b/c", false),
            ("/{*}/b/{**}", "/x/b/c/d", true),
            ("/{*}/b/{**}", "/x/y/c/d", false),
            ("/a/{**}/z", "/a/b/c/z", true),
            ("/a/{**}/z", "/a/b/c", false),
            ("/a/{**}/z", "/a/z", false),
        ] {
            let read = PathMatch::parse(pattern).unwrap();
            assert_eq!(read.matches(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_text() {
        for (pattern, path, matches) in [
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a*", "/ab/c", true),
            ("*.html", "/x/index.html", true),
            ("*", "/", true),
        ] {
            let read = PathMatch::parse(pattern).unwrap();
            assert_eq!(read.matches(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn templates_that_istio_refuses_are_refused() {
        for pattern in ["/{**}/{*}", "/{**}/a/{**}", "/a{*}", "/{a}/{*}", "/{a}", "/a b/{*}", ""] {
            assert_eq!(PathMatch::parse(pattern), None, "{pattern}");
        }
    }
}
