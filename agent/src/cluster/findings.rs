//! What checks of a cluster say.

use std::{fmt, process::ExitCode};

/// How bad something is. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Works, and not as one may think.
    Warning,
    /// The mesh would not work, or does not.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    level: Level,
    about: &'static str,
    found: String,
    remedy: String,
}

impl Finding {
    pub(super) fn ok(about: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, about, found: found.into(), remedy: String::new() }
    }

    pub(super) fn warning(about: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self { level: Level::Warning, about, found: found.into(), remedy: remedy.to_owned() }
    }

    pub(super) fn error(about: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self { level: Level::Error, about, found: found.into(), remedy: remedy.to_owned() }
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// What a check has found, or that it could not be made.
    pub(super) fn checked<E: fmt::Display>(
        &mut self,
        about: &'static str,
        found: Result<Vec<Finding>, E>,
    ) {
        match found {
            Ok(found) => self.0.extend(found),
            Err(error) => self.add(Finding::error(
                about,
                format!("cannot be looked at: {error}"),
                "see that the API server answers, and that you have the right to read this",
            )),
        }
    }

    /// The worst.
    pub(super) fn level(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.level() as u8)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { level, about, found, remedy } in &self.0 {
            let level = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            writeln!(f, "{level:<8} {about:<12} {found}")?;
            if !remedy.is_empty() {
                writeln!(f, "{:<21} -> {remedy}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code_and_remedies_stand_below() {
        let mut findings = Findings::default();
        assert_eq!(findings.level(), Level::Ok);
        findings.add(Finding::ok("nodes", "3 nodes"));
        findings.add(Finding::warning("webhook", "silent", "wait"));
        assert_eq!(findings.level(), Level::Warning);
        findings.checked("rights", Err::<Vec<Finding>, _>("no"));
        assert_eq!(findings.level(), Level::Error);
        let text = findings.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ok       nodes        3 nodes");
        assert_eq!(lines[2].trim(), "-> wait");
        assert!(lines[3].starts_with("error    rights       cannot be looked at: no"));
    }
}
