//! Rewriting with a regular expression (Istio `uriRegexRewrite`).

use regex::bytes::Regex;

use super::{PatternError, re2};

/// RE2 and what takes the place of all that it matches.
#[derive(Clone, Debug)]
pub struct Substitution {
    pattern: Regex,
    /// In the library's notation.
    replacement: Vec<u8>,
}

impl Substitution {
    /// Compiles both. In `replacement`, `\1` to `\9` are groups, `\0` all of the match, and `\\` is
    /// a backslash.
    ///
    /// # Errors
    /// The pattern is not RE2, or the replacement names a group that it does not have.
    pub fn new(pattern: &str, replacement: &str) -> Result<Self, PatternError> {
        let compiled = re2::part(pattern)?;
        let replacement = translate(replacement, compiled.captures_len()).ok_or_else(|| {
            let why = format!("there is no such group as {replacement:?} has");
            PatternError::Regex { pattern: pattern.to_owned(), why }
        })?;
        Ok(Self { pattern: compiled, replacement })
    }

    /// Whether there is anything to replace in `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.pattern.is_match(text.as_bytes())
    }

    /// `text` with all matches replaced.
    pub fn apply(&self, text: &str) -> String {
        let replaced = self.pattern.replace_all(text.as_bytes(), &*self.replacement);
        String::from_utf8_lossy(&replaced).into_owned()
    }
}

/// RE2's notation as the library's; `None` for a group that is not there.
fn translate(replacement: &str, groups: usize) -> Option<Vec<u8>> {
    let mut out = String::with_capacity(replacement.len() + 8);
    let mut rest = replacement.chars();
    while let Some(next) = rest.next() {
        match next {
            '$' => out.push_str("$$"),
            '\\' => match rest.next()? {
                '\\' => out.push('\\'),
                digit => {
                    let group = digit.to_digit(10).filter(|group| (*group as usize) < groups)?;
                    out.push_str(&format!("${{{group}}}"));
                }
            },
            other => out.push(other),
        }
    }
    Some(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(pattern: &str, replacement: &str, text: &str) -> String {
        Substitution::new(pattern, replacement).unwrap().apply(text)
    }

    #[test]
    fn groups_and_dollars_are_put_in_as_re2_does() {
        assert_eq!(apply("^/a/([^/]+)/(.*)$", r"/\2/\1", "/a/b/c"), "/c/b");
        assert_eq!(apply("b", "$1", "/abc/b"), "/a$1c/$1");
        assert_eq!(apply("b", r"\\\0", "b"), r"\b");
    }

    #[test]
    fn a_group_that_is_not_there_is_an_error() {
        assert!(Substitution::new("a", r"\1").is_err());
        assert!(Substitution::new("(a", "x").is_err());
        assert!(Substitution::new("a", r"\").is_err());
    }
}
