//! What is wrong with the configuration, said about the object that says it.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::ResourceRef;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Works, but probably not as meant.
    Warning,
    /// The object, or the whole state, cannot be used.
    Error,
}

/// Where in a file an object or a mistake stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourcePosition {
    /// The manifest file.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One finding about one object: what happened, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, kebab-case name of the finding, such as `duplicate-address`.
    pub code: &'static str,
    /// The object; `None` where a file could not be read far enough to name one.
    pub object: Option<ResourceRef>,
    /// Where it stands, where a file is the source.
    pub position: Option<SourcePosition>,
    /// What is wrong.
    pub message: String,
    /// What the user can do.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.code)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
