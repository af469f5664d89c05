//! The report: a table of features and a list of findings, for people and for programs.

use std::{fmt, fs, process::ExitCode};

use serde::Serialize;
use undermesh_datapath::{Availability, KernelFeatures, Probed};

use super::{
    finding::{Row, Severity},
    situation::Situation,
};
use crate::status::section;

/// Everything that is printed. Field names are API (docs/reference/doctor.md).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    version: &'static str,
    preflight: bool,
    kernel: String,
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: Vec<Row>,
    features: Option<KernelFeatures>,
}

impl Report {
    pub(super) fn new(situation: &Situation, findings: Vec<Row>) -> Self {
        let count = |severity| findings.iter().filter(|row| row.severity == severity).count();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            preflight: situation.preflight,
            kernel: kernel.trim().to_owned(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings,
            features: situation.features.get().cloned(),
        }
    }

    /// 0: nothing worse than notes; 1: warnings; 2: errors.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match (self.errors, self.warnings) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Kernel {}", self.kernel)?;
        let features = self.features.iter().flat_map(KernelFeatures::all);
        let head = ["FEATURE", "AVAILABLE", "USED FOR", "WITHOUT IT"];
        section(f, "Features", &head, features.map(feature_row))?;
        writeln!(f, "\nFindings")?;
        for row in &self.findings {
            write_row(f, row)?;
        }
        let Self { errors, warnings, notes, .. } = self;
        writeln!(f, "\nErrors: {errors}, warnings: {warnings}, notes: {notes}")
    }
}

fn feature_row(probed: &Probed) -> Vec<String> {
    let available = match &probed.availability {
        Availability::Available => "yes".to_owned(),
        Availability::Missing(_) => "NO".to_owned(),
        Availability::Unknown(_) => "unknown".to_owned(),
    };
    vec![
        probed.feature.to_owned(),
        available,
        probed.used_for.to_owned(),
        probed.without.to_owned(),
    ]
}

fn write_row(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    if row.severity == Severity::Ok {
        return writeln!(f, "  ok       {}", row.check);
    }
    let severity = row.severity.as_str();
    let severity =
        if row.severity > Severity::Note { severity.to_uppercase() } else { severity.to_owned() };
    writeln!(f, "  {severity:<8} {} [{}] {}: {}", row.check, row.id, row.object, row.found)?;
    writeln!(f, "           consequence: {}", row.consequence)?;
    writeln!(f, "           remedy: {}", row.remedy)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{catalogue::Kind, finding::Finding},
        *,
    };

    fn report(rows: Vec<Row>) -> Report {
        let count = |severity| rows.iter().filter(|row| row.severity == severity).count();
        Report {
            version: "0",
            preflight: true,
            kernel: "6.1".to_owned(),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings: rows,
            features: None,
        }
    }

    fn row(kind: Kind) -> Row {
        Row::of("some", Finding::new(kind, "/object", "found"))
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        for (kinds, code) in [
            (vec![], 0),
            (vec![Kind::CniFound], 0),
            (vec![Kind::CniFound, Kind::JitOff], 1),
            (vec![Kind::JitOff, Kind::PortBusy], 2),
        ] {
            let report = report(kinds.into_iter().map(row).collect());
            assert_eq!(report.exit_code(), ExitCode::from(code));
        }
    }

    #[test]
    fn people_read_what_was_found_what_follows_and_what_to_do() {
        let text = report(vec![Row::ok("fine"), row(Kind::JitOff)]).to_string();
        for part in [
            "ok       fine",
            "WARNING  some [jit-off] /object: found",
            "consequence: programs are interpreted",
            "remedy: sysctl -w",
            "Errors: 0, warnings: 1, notes: 0",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
