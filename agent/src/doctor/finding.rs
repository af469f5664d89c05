//! A finding, and what makes one.

use serde::Serialize;

use super::{catalogue::Kind, situation::Situation};

/// How bad a finding is. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// A check has found nothing.
    Ok,
    /// Worth knowing.
    Note,
    /// Something is worse than it should be, or will be.
    Warning,
    /// The mesh does not work, or not for everybody.
    Error,
}

impl Severity {
    /// The word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// What it is about: a file, an address, an object of the configuration.
    pub(super) object: String,
    /// What is the case there.
    pub(super) found: String,
}

impl Finding {
    pub(super) fn new(kind: Kind, object: impl Into<String>, found: impl Into<String>) -> Self {
        Self { kind, object: object.into(), found: found.into() }
    }
}

/// A group of questions. It returns within some seconds, whatever it meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    /// Stable name.
    pub(super) name: &'static str,
    /// Asks them.
    pub(super) run: fn(&Situation) -> Vec<Finding>,
}

/// A row of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// Stable name of what was found; `ok` where nothing was.
    pub(super) id: &'static str,
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    pub(super) object: String,
    pub(super) found: String,
    /// What follows from it.
    pub(super) consequence: &'static str,
    /// What to do.
    pub(super) remedy: &'static str,
}

impl Row {
    pub(super) fn of(check: &'static str, finding: Finding) -> Self {
        let Finding { kind, object, found } = finding;
        Self {
            id: kind.id(),
            check,
            severity: kind.severity(),
            object,
            found,
            consequence: kind.consequence(),
            remedy: kind.remedy(),
        }
    }

    /// A check that has found nothing.
    pub(super) fn ok(check: &'static str) -> Self {
        Self {
            id: "ok",
            check,
            severity: Severity::Ok,
            object: String::new(),
            found: String::new(),
            consequence: "",
            remedy: "",
        }
    }
}
