//! Collects findings while a state is read.

use undermesh_model::{Diagnostic, ResourceRef, Severity, SourcePosition};

use crate::node::Node;

/// Findings about one state of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    diagnostics: Vec<Diagnostic>,
}

/// The object that findings are about. Where the source is not a file, it has no position.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) origin: ResourceRef,
    pub(crate) position: Option<SourcePosition>,
    /// The object's text, which knows the lines of its fields.
    pub(crate) document: Option<&'a Node>,
}

impl Subject<'_> {
    /// For findings that nobody is told.
    pub(crate) fn nobody() -> Self {
        Self { origin: ResourceRef::cluster_scoped("", ""), position: None, document: None }
    }

    /// Where a field stands, or the nearest that is written above it.
    pub(crate) fn position_of(&self, path: &[&str]) -> Option<SourcePosition> {
        let position = self.position.as_ref()?;
        let line = self.document.map_or(position.line, |document| document.line_of(path));
        Some(SourcePosition { file: position.file.clone(), line })
    }
}

impl Report {
    /// Something that makes the state unusable. An empty `path` means the whole object.
    pub(crate) fn error(
        &mut self,
        subject: &Subject<'_>,
        path: &[&str],
        code: &'static str,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.about(Severity::Error, subject, path, (code, message.into(), remedy));
    }

    /// Something that is probably not meant.
    pub(crate) fn warning(
        &mut self,
        subject: &Subject<'_>,
        path: &[&str],
        code: &'static str,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.about(Severity::Warning, subject, path, (code, message.into(), remedy));
    }

    /// Something worth knowing.
    pub(crate) fn info(
        &mut self,
        subject: &Subject<'_>,
        path: &[&str],
        code: &'static str,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.about(Severity::Info, subject, path, (code, message.into(), remedy));
    }

    fn about(
        &mut self,
        severity: Severity,
        subject: &Subject<'_>,
        path: &[&str],
        (code, message, remedy): (&'static str, String, &str),
    ) {
        self.add(Diagnostic {
            severity,
            code,
            object: Some(subject.origin.clone()),
            position: subject.position_of(path),
            message,
            remedy: remedy.to_owned(),
        });
    }

    /// A finding that no object can be named for.
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Whether there is anything that makes the state unusable.
    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All findings so far, in the order in which they were made.
    pub(crate) fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// All findings, in the order in which they were made.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }
}
