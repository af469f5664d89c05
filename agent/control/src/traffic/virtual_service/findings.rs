//! Where in the object a reader is, and what it has to say there.

use std::time::Duration;

use undermesh_model::traffic::TextPattern;

use super::shapes::StringMatch;
use crate::{
    field, names,
    report::{Report, Subject},
    traffic::common,
};

/// The place of a field.
#[derive(Clone, Debug)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn spec() -> Self {
        Self(vec!["spec".to_owned()])
    }

    pub(super) fn root(field: &str) -> Self {
        Self::spec().field(field)
    }

    pub(super) fn field(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(name.to_owned());
        Self(steps)
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.field(&index.to_string())
    }

    pub(super) fn steps(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// Takes what is said about one object.
pub(super) struct Findings<'a> {
    pub(super) subject: &'a Subject<'a>,
    report: &'a mut Report,
}

impl<'a> Findings<'a> {
    pub(super) fn new(subject: &'a Subject<'a>, report: &'a mut Report) -> Self {
        Self { subject, report }
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.subject.origin.namespace
    }

    /// Something that Istio's validation refuses, too.
    pub(super) fn refuse(&mut self, at: &Path, what: impl AsRef<str>, remedy: &str) {
        let steps = at.steps();
        let message = format!("{}: {}", field::name(&steps), what.as_ref());
        self.report.error(self.subject, &steps, "invalid-virtual-service", message, remedy);
    }

    /// Something that is passed over.
    pub(super) fn warn(
        &mut self,
        at: &Path,
        code: &'static str,
        what: impl AsRef<str>,
        remedy: &str,
    ) {
        let steps = at.steps();
        let message = format!("{}: {}", field::name(&steps), what.as_ref());
        self.report.warning(self.subject, &steps, code, message, remedy);
    }

    /// Something that is as the user wants it, but for which nothing is done here.
    pub(super) fn inform(&mut self, at: &Path, code: &'static str, what: &str, remedy: &str) {
        self.report.info(self.subject, &at.steps(), code, what, remedy);
    }

    /// A duration of at least a millisecond.
    pub(super) fn duration(&mut self, at: &Path, text: &str) -> Option<Duration> {
        let read = common::duration(text).filter(|time| !time.is_zero());
        let read = read.filter(|time| time.subsec_nanos() % 1_000_000 == 0);
        if read.is_none() {
            let what = format!("{text:?} is no duration of one or more whole milliseconds");
            self.refuse(at, what, "write it like 500ms, 2s or 1m30s; leave it out for none");
        }
        read
    }

    /// A regular expression.
    pub(super) fn regex(&mut self, at: &Path, pattern: &str) {
        if let Some(why) = common::pattern_error(pattern) {
            self.refuse(at, format!("the pattern {why}"), "write an RE2 expression");
        }
    }

    /// A pattern; `None` where nothing is said about the text.
    pub(super) fn text(&mut self, at: &Path, shape: &StringMatch) -> Option<TextPattern> {
        let StringMatch { exact, prefix, regex } = shape;
        if [exact, prefix, regex].iter().filter(|one| one.is_some()).count() > 1 {
            let remedy = "write one match for each";
            self.refuse(at, "has more than one of exact, prefix and regex", remedy);
        }
        if let Some(exact) = exact {
            return Some(TextPattern::Exact(exact.clone()));
        }
        if let Some(prefix) = prefix {
            return Some(TextPattern::Prefix(prefix.clone()));
        }
        let pattern = regex.as_ref()?;
        self.regex(&at.field("regex"), pattern);
        Some(TextPattern::Regex(pattern.clone()))
    }

    /// The same where Istio refuses a prefix that every text has.
    pub(super) fn filled(&mut self, at: &Path, shape: &StringMatch) -> Option<TextPattern> {
        if shape.prefix.as_deref() == Some("") {
            self.refuse(&at.field("prefix"), "is empty", "leave the match out, or write a prefix");
        }
        self.text(at, shape)
    }

    /// The name of a namespace; `None` where there is none.
    pub(super) fn namespace_name(&mut self, at: &Path, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        if !names::is_label(name) {
            self.refuse(at, format!("{name:?} is no name of a namespace"), "correct it");
        }
        Some(name.to_owned())
    }

    /// The name of a header.
    pub(super) fn header_name(&mut self, at: &Path, name: &str) {
        if !is_token(name) {
            self.refuse(at, format!("{name:?} is no name of a header"), "correct it");
        }
    }
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}
