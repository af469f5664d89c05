//! How an AuthorizationPolicy says whose tokens it means.

use super::TextMatch;

/// An issuer and a subject, written `issuer/subject`.
///
/// Source: Istio, `pilot/pkg/security/authz/model/generator.go`, `requestPrincipalGenerator`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrincipalMatch {
    /// The claim `iss`.
    pub issuer: TextMatch,
    /// The claim `sub`.
    pub subject: TextMatch,
}

impl PrincipalMatch {
    /// Reads Istio's way of writing it. An issuer may be a URL, so that the last slash parts the two.
    pub fn parse(text: &str) -> Self {
        use TextMatch::{Exact, Prefix, Present, Suffix};
        let exact = |text: &str| Exact(text.to_owned());
        let parts = text.rsplit_once('/');
        let (issuer, subject) = match (text.strip_prefix('*'), text.strip_suffix('*'), parts) {
            (Some(""), ..) => (Present, Present),
            (Some(_), _, Some((issuer, subject))) => {
                (TextMatch::parse_start(issuer), exact(subject))
            }
            (Some(rest), _, None) => (Present, Suffix(rest.to_owned())),
            (_, Some(_), Some((issuer, subject))) => (exact(issuer), TextMatch::parse_end(subject)),
            (_, Some(rest), None) => (Prefix(rest.to_owned()), Present),
            (None, None, Some((issuer, subject))) => (exact(issuer), exact(subject)),
            (None, None, None) => (exact(text), exact("")),
        };
        Self { issuer, subject }
    }

    /// Whether a token with these claims matches.
    pub fn matches(&self, issuer: &str, subject: &str) -> bool {
        self.issuer.matches(issuer) && self.subject.matches(subject)
    }
}

impl TextMatch {
    /// `*` or `*abc`.
    fn parse_start(text: &str) -> Self {
        match text.strip_prefix('*') {
            None | Some("") => Self::Present,
            Some(suffix) => Self::Suffix(suffix.to_owned()),
        }
    }

    /// `*` or `abc*`.
    fn parse_end(text: &str) -> Self {
        match text.strip_suffix('*') {
            None | Some("") => Self::Present,
            Some(prefix) => Self::Prefix(prefix.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuer_and_subject_are_parted_at_the_last_slash() {
        for (pattern, issuer, subject, matches) in [
            ("a/b", "a", "b", true),
            ("a/b", "a", "c", false),
            ("https://a.example/x/b", "https://a.example/x", "b", true),
            ("*", "a", "b", true),
            ("*", "a", "", false),
            ("*/b", "a", "b", true),
            ("*.example/b", "a.example", "b", true),
            ("*.example/b", "a.test", "b", false),
            ("*b", "a", "ab", true),
            ("a/*", "a", "b", true),
            ("a/b*", "a", "bc", true),
            ("a/b*", "ab", "bc", false),
            ("a*", "ab", "c", true),
            ("a", "a", "b", false),
        ] {
            let read = PrincipalMatch::parse(pattern);
            assert_eq!(read.matches(issuer, subject), matches, "{pattern} {issuer} {subject}");
        }
    }
}
