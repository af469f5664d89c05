//! What is not to be said: a code, and the objects about which it is not.

use std::str::FromStr;

use super::found::Found;

/// One `--suppress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suppression {
    /// As it was written.
    pub(super) text: String,
    code: String,
    /// Kind, namespace (none for objects without one) and name, each with `*` for any run of characters.
    object: Option<(String, Option<String>, String)>,
}

impl Suppression {
    /// Whether it is about a finding.
    pub(super) fn is_about(&self, finding: &Found) -> bool {
        let Found { code, kind, namespace, name, .. } = finding;
        let of_object = match &self.object {
            None => true,
            Some((kinds, namespaces, names)) => {
                let of_namespace = match namespaces {
                    Some(wanted) => is_like(wanted, namespace),
                    None => namespace.is_empty(),
                };
                is_like(kinds, kind) && of_namespace && is_like(names, name)
            }
        };
        is_like(&self.code, code) && of_object
    }
}

impl FromStr for Suppression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (code, object) = match text.split_once('=') {
            None => (text, None),
            Some((code, object)) => (code, Some(object)),
        };
        if code.is_empty() {
            return Err("it names no code; write CODE or CODE=KIND NAMESPACE/NAME".to_owned());
        }
        let object = object.map(|object| {
            let (kind, name) = object
                .split_once(' ')
                .filter(|(kind, name)| !kind.is_empty() && !name.is_empty())
                .ok_or("after `=` comes an object: KIND NAMESPACE/NAME, or KIND NAME")?;
            Ok::<_, String>(match name.split_once('/') {
                Some((namespace, name)) => {
                    (kind.to_owned(), Some(namespace.to_owned()), name.to_owned())
                }
                None => (kind.to_owned(), None, name.to_owned()),
            })
        });
        Ok(Self { text: text.to_owned(), code: code.to_owned(), object: object.transpose()? })
    }
}

/// Whether a text is of a pattern in which `*` stands for any run of characters.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(code: &str, kind: &str, namespace: &str, name: &str) -> Found {
        Found {
            code: code.to_owned(),
            severity: undermesh_model::Severity::Warning,
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            file: String::new(),
            line: 0,
            message: String::new(),
            remedy: String::new(),
        }
    }

    #[test]
    fn codes_and_objects_are_told_apart() {
        let one = finding("unknown-field", "DestinationRule", "shop", "cart");
        let node = finding("unknown-field", "Node", "", "a");
        for (text, about_one, about_node) in [
            ("unknown-field", true, true),
            ("unknown-*", true, true),
            ("unknown", false, false),
            ("unknown-field=DestinationRule shop/cart", true, false),
            ("unknown-field=* shop/*", true, false),
            ("unknown-field=* */c*t", true, false),
            ("unknown-field=* */c*r", false, false),
            ("unknown-field=Node a", false, true),
            ("unknown-field=* *", false, true),
            ("other=DestinationRule shop/cart", false, false),
        ] {
            let suppression: Suppression = text.parse().unwrap();
            assert_eq!(suppression.is_about(&one), about_one, "{text}");
            assert_eq!(suppression.is_about(&node), about_node, "{text}");
        }
    }

    #[test]
    fn what_names_no_object_is_refused() {
        for text in ["", "=Pod a/b", "unknown-field=", "unknown-field=Pod", "unknown-field= a/b"] {
            assert!(text.parse::<Suppression>().is_err(), "{text:?}");
        }
    }
}
