//! Collects findings while a state is read.

use undermesh_model::{Diagnostic, ResourceRef, Severity, SourcePosition};

/// Findings about one state of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

/// What a finding is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) object: Option<ResourceRef>,
    pub(crate) position: Option<SourcePosition>,
}

impl Subject {
    pub(crate) fn object(object: &ResourceRef, position: &SourcePosition) -> Self {
        Self { object: Some(object.clone()), position: Some(position.clone()) }
    }

    pub(crate) fn place(position: SourcePosition) -> Self {
        Self { object: None, position: Some(position) }
    }
}

impl Report {
    /// Something that makes the state unusable.
    pub(crate) fn error(
        &mut self,
        subject: &Subject,
        code: &'static str,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.add(Severity::Error, subject, code, message.into(), remedy);
    }

    /// Something that is probably not meant.
    pub(crate) fn warning(
        &mut self,
        subject: &Subject,
        code: &'static str,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.add(Severity::Warning, subject, code, message.into(), remedy);
    }

    fn add(
        &mut self,
        severity: Severity,
        subject: &Subject,
        code: &'static str,
        message: String,
        remedy: &str,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            object: subject.object.clone(),
            position: subject.position.clone(),
            message,
            remedy: remedy.to_owned(),
        });
    }

    /// Whether there is anything that makes the state unusable.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// All findings, in the order in which they were made.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }
}
