//! Where in an object the reading stands, and where its findings go.

use undermesh_model::NamespacedName;

use super::backends::Reference;
use crate::{
    field,
    objects::Placed,
    report::{Report, Subject},
};

/// What the API's own validation refuses.
const INVALID: &str = "invalid-route";

/// A place in an object.
pub(super) struct Cursor<'a, 's> {
    subject: &'a Subject<'s>,
    report: &'a mut Report,
    path: Vec<String>,
    references: Vec<Placed<Reference>>,
}

impl<'a, 's> Cursor<'a, 's> {
    /// At the top of the object.
    pub(super) fn new(subject: &'a Subject<'s>, report: &'a mut Report) -> Self {
        Self { subject, report, path: Vec::new(), references: Vec::new() }
    }

    /// Reads something below a field.
    pub(super) fn within<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step.to_owned());
        let read = read(self);
        self.path.pop();
        read
    }

    /// Reads every item of a list, which may have `most`.
    pub(super) fn each<I, T>(
        &mut self,
        field: &str,
        items: &[I],
        most: usize,
        mut read: impl FnMut(&mut Self, &I) -> T,
    ) -> Vec<T> {
        if items.len() > most {
            let message = format!("has {} items, {most} are allowed", items.len());
            self.error(&[field], &message, "write several routes or rules");
        }
        self.within(field, |cursor| {
            let items = items.iter().take(most).enumerate();
            items
                .map(|(index, item)| cursor.within(&index.to_string(), |at| read(at, item)))
                .collect()
        })
    }

    /// The object's namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.subject.origin.namespace
    }

    /// The object's kind.
    pub(super) fn kind(&self) -> &str {
        self.subject.origin.kind
    }

    /// Something that stands below this place.
    pub(super) fn place<T>(&self, value: T, below: &[&str]) -> Placed<T> {
        Placed::at(value, self.subject, &path(&self.path, below))
    }

    /// Notes a Service that has to be there.
    pub(super) fn refer(&mut self, service: NamespacedName, port: u16) {
        let reference = self.place(Reference { service, port }, &["name"]);
        self.references.push(reference);
    }

    /// The Services that have to be there.
    pub(super) fn into_references(self) -> Vec<Placed<Reference>> {
        self.references
    }

    /// What the API's validation refuses: the whole state is rejected.
    pub(super) fn error(&mut self, below: &[&str], message: &str, remedy: &str) {
        let path = path(&self.path, below);
        let message = format!("{}: {message}", field::name(&path));
        self.report.error(self.subject, &path, INVALID, message, remedy);
    }

    /// Something that is probably not meant, or that is not done here.
    pub(super) fn warning(
        &mut self,
        below: &[&str],
        code: &'static str,
        message: &str,
        remedy: &str,
    ) {
        let path = path(&self.path, below);
        let message = format!("{}: {message}", field::name(&path));
        self.report.warning(self.subject, &path, code, message, remedy);
    }

    /// Something worth knowing.
    pub(super) fn info(&mut self, below: &[&str], code: &'static str, message: &str, remedy: &str) {
        let path = path(&self.path, below);
        let message = format!("{}: {message}", field::name(&path));
        self.report.info(self.subject, &path, code, message, remedy);
    }
}

fn path<'p>(above: &'p [String], below: &[&'p str]) -> Vec<&'p str> {
    above.iter().map(String::as_str).chain(below.iter().copied()).collect()
}
