//! Where in an object a reader is, and what it has to say there.

use std::{cell::RefCell, time::Duration};

use crate::{
    field,
    report::{Report, Subject},
    traffic::common,
};

/// The object that is read, and what is said about it.
pub(super) struct Reading<'a> {
    subject: &'a Subject<'a>,
    /// Code of what validation refuses.
    refused: &'static str,
    report: RefCell<Report>,
}

/// A place in the object: a field, or an item of a list, and what is above it. Making one costs
/// nothing; its name is only put together where something is said.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    reading: &'a Reading<'a>,
    above: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Object,
    Field(&'a str),
    Item(usize),
}

/// Reads an object. `refused` is the code of whatever makes the state unusable.
pub(super) fn read<T>(
    subject: &Subject<'_>,
    report: &mut Report,
    refused: &'static str,
    read: impl FnOnce(&Place<'_>) -> T,
) -> T {
    let reading = Reading { subject, refused, report: RefCell::new(std::mem::take(report)) };
    let value = read(&Place { reading: &reading, above: None, step: Step::Object });
    *report = reading.report.into_inner();
    value
}

impl<'a> Place<'a> {
    /// A field of this place.
    pub(super) fn field<'b>(&'b self, name: &'b str) -> Place<'b> {
        Place { reading: self.reading, above: Some(self), step: Step::Field(name) }
    }

    /// An item of this list.
    pub(super) fn item(&self, index: usize) -> Place<'_> {
        Place { reading: self.reading, above: Some(self), step: Step::Item(index) }
    }

    /// The object's namespace.
    pub(super) fn namespace(&self) -> &'a str {
        &self.reading.subject.origin.namespace
    }

    /// Something that the API's own validation refuses.
    pub(super) fn refuse(&self, what: impl AsRef<str>, remedy: &str) {
        let (code, subject) = (self.reading.refused, self.reading.subject);
        self.say(what.as_ref(), |report, path, what| {
            report.error(subject, path, code, what, remedy);
        });
    }

    /// Something that is probably not meant.
    pub(super) fn warn(&self, code: &'static str, what: impl AsRef<str>, remedy: &str) {
        let subject = self.reading.subject;
        self.say(what.as_ref(), |report, path, what| {
            report.warning(subject, path, code, what, remedy);
        });
    }

    /// A field of this place that is valid and not supported, where it is set.
    pub(super) fn unsupported<T>(&self, name: &str, value: Option<&T>, instead: &str) {
        if value.is_some() {
            self.field(name).warn("unsupported-field", "is not supported", instead);
        }
    }

    /// A duration of one or more whole milliseconds, as Istio wants all but a few to be.
    pub(super) fn duration(&self, name: &str, text: Option<&String>) -> Option<Duration> {
        let read = self.any_duration(name, text)?;
        if read.is_zero() || read.subsec_nanos() % 1_000_000 != 0 {
            let remedy = "write one or more whole milliseconds; leave it out for the default";
            self.field(name).refuse("is not a number of milliseconds", remedy);
        }
        Some(read)
    }

    /// A duration, which may be nothing.
    pub(super) fn any_duration(&self, name: &str, text: Option<&String>) -> Option<Duration> {
        let text = text?;
        let read = common::duration(text);
        if read.is_none() {
            let remedy = "write it like 500ms, 2s or 1m30s";
            self.field(name).refuse(format!("{text:?} is no duration"), remedy);
        }
        read
    }

    fn say(&self, what: &str, add: impl FnOnce(&mut Report, &[&str], String)) {
        let mut path = Vec::new();
        self.collect(&mut path);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let name = field::name(&path);
        let what = if name.is_empty() { what.to_owned() } else { format!("{name}: {what}") };
        add(&mut self.reading.report.borrow_mut(), &path, what);
    }

    fn collect(&self, path: &mut Vec<String>) {
        if let Some(above) = self.above {
            above.collect(path);
        }
        match self.step {
            Step::Object => {}
            Step::Field(name) => path.push(name.to_owned()),
            Step::Item(index) => path.push(index.to_string()),
        }
    }
}
