//! Hosts as objects name them, and as clients ask for them.

/// A DNS name in lower case, `*.` and a name, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern(String);

impl HostPattern {
    /// From an object's text.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('.').to_ascii_lowercase())
    }

    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for more than one name.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether a name is meant. `*.a.b` is about `x.a.b` and `y.x.a.b`, not about `a.b`; case is
    /// disregarded.
    pub fn matches(&self, name: &str) -> bool {
        host_matches(&self.0, name)
    }

    /// Whether an authority is meant: a name, perhaps with a port.
    pub fn matches_authority(&self, authority: &str) -> bool {
        self.matches(host_of(authority))
    }
}

/// Whether a pattern is about a name; both in any case.
pub(crate) fn host_matches(pattern: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
    let Some(suffix) = pattern.strip_prefix('*') else {
        return name.eq_ignore_ascii_case(pattern.as_bytes());
    };
    let end = name.len().checked_sub(suffix.len()).map(|at| &name[at..]);
    (suffix.is_empty() || name.len() > suffix.len())
        && end.is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}
