//! A finding as it is printed, and as an agent says it.

use serde::{Deserialize, Serialize};
use undermesh_model::{Diagnostic, Severity};

/// A finding. Field names are API (docs/reference/analyze.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    /// Stable name of the finding.
    pub(crate) code: String,
    pub(crate) severity: Severity,
    /// Kind of the object; empty where none can be named.
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The file; empty where it came from elsewhere.
    pub(crate) file: String,
    /// Line in the file, from 1; 0 where there is no file.
    pub(crate) line: usize,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

impl Found {
    /// The object, the way users write it.
    pub(crate) fn object(&self) -> String {
        let Self { kind, namespace, name, .. } = self;
        match namespace.as_str() {
            "" if name.is_empty() => String::new(),
            "" => format!("{kind} {name}"),
            _ => format!("{kind} {namespace}/{name}"),
        }
    }
}

impl From<&Diagnostic> for Found {
    fn from(it: &Diagnostic) -> Self {
        let object = it.object.as_ref();
        let position = it.position.as_ref();
        Self {
            code: it.code.to_owned(),
            severity: it.severity,
            kind: object.map_or_else(String::new, |object| object.kind.to_owned()),
            namespace: object.map_or_else(String::new, |object| object.namespace.clone()),
            name: object.map_or_else(String::new, |object| object.name.clone()),
            file: position.map_or_else(String::new, |at| at.file.display().to_string()),
            line: position.map_or(0, |at| at.line),
            message: it.message.clone(),
            remedy: it.remedy.clone(),
        }
    }
}

/// The word of a severity.
pub(super) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}
