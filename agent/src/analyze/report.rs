//! The report, for people and for programs.

use std::fmt;

use serde::Serialize;
use undermesh_model::Severity;

use super::found::{Found, word};

/// Everything that is printed. Field names are API (docs/reference/analyze.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// What was looked at.
    pub(super) scope: String,
    /// Findings that `--suppress` has left out.
    pub(super) suppressed: usize,
    pub(super) findings: Vec<Found>,
}

impl Report {
    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Found { code, file, line, message, remedy, .. } = finding;
            write!(f, "{:<7} {code}  ", word(finding.severity))?;
            if !file.is_empty() {
                write!(f, "{file}:{line}  ")?;
            }
            writeln!(f, "{}", finding.object())?;
            writeln!(f, "        {message}")?;
            if !remedy.is_empty() {
                writeln!(f, "        -> {remedy}")?;
            }
        }
        if !self.findings.is_empty() {
            writeln!(f)?;
        }
        let [errors, warnings, notes] =
            [Severity::Error, Severity::Warning, Severity::Info].map(|it| self.count(it));
        write!(f, "{}: {errors} errors, {warnings} warnings, {notes} infos", self.scope)?;
        match self.suppressed {
            0 => writeln!(f),
            some => writeln!(f, "; {some} suppressed"),
        }
    }
}
