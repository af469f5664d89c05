//! Names of objects, as Kubernetes allows them. Nobody has checked them before us, and
//! namespaces and service accounts become part of identities.

/// Longest DNS label (RFC 1123).
const MAX_LABEL: usize = 63;
/// Longest name of an object.
const MAX_NAME: usize = 253;

/// A DNS label: namespaces and services.
pub(crate) fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_LABEL && is_segment(name, inner)
}

/// DNS labels joined by dots: every other object.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAME && name.split('.').all(|segment| is_segment(segment, inner))
}

/// What may stand in `metadata.name` of a Node. Host names with capitals and underscores exist,
/// and nothing is derived from them.
pub(crate) fn is_host(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.len() <= MAX_NAME && is_segment(name, inner)
}

fn is_segment(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(inner)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_allows() {
        let long = "a".repeat(64);
        for (name, label, subdomain) in [
            ("shop", true, true),
            ("cart-0", true, true),
            ("0", true, true),
            ("a.b", false, true),
            (long.as_str(), false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("Shop", false, false),
            ("a_b", false, false),
            ("shop/sa/admin", false, false),
            ("..", false, false),
            ("a b", false, false),
            ("caf\u{e9}", false, false),
        ] {
            assert_eq!((is_label(name), is_subdomain(name)), (label, subdomain), "{name:?}");
        }
        assert!(!is_subdomain(&"a".repeat(254)));
        assert!(is_host("DB_01.example") && !is_host("a/b") && !is_host(""));
    }
}
