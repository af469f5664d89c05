//! How long certificates will do: the authority's on disk, and those of the running agent.

use std::time::SystemTime;

use undermesh_identity::{CaDirectory, spent_percent};

use super::{catalogue::Kind, finding::Finding, situation::Situation};
use crate::status::CertificateRow;

/// Shares of a certificate's life, in percent. The agent renews workloads' at half; one that is
/// being renewed is no news, so those are looked at a little later.
const HALF: i64 = 50;
const RENEWED_BY: i64 = 60;
const ENDING: i64 = 80;
const OVER: i64 = 100;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let now = SystemTime::now();
    let status = situation.status().as_ref().ok();
    let rows = status.into_iter().flat_map(|status| &status.certificates);
    of_authority(situation, now)
        .into_iter()
        .chain(rows.flat_map(|row| of_workload(row, now)))
        .collect()
}

fn of_authority(situation: &Situation, now: SystemTime) -> Vec<Finding> {
    if let Some(remote) = &situation.outline.ca_remote {
        let files = [&remote.roots, &remote.token];
        let unusable = files.into_iter().filter_map(|path| {
            let error = std::fs::read(path).err()?;
            Some(Finding::new(Kind::CaUnusable, path.display().to_string(), error.to_string()))
        });
        return unusable.collect();
    }
    let dir = &situation.outline.ca_dir;
    let object = dir.display().to_string();
    if situation.preflight && !dir.exists() {
        return vec![Finding::new(Kind::CaAbsent, object, "it is not there")];
    }
    let info = match CaDirectory::open(dir).and_then(|directory| directory.describe()) {
        Ok(info) => info,
        Err(error) => return vec![Finding::new(Kind::CaUnusable, object, chain(&error))],
    };
    let certificates = [("issuer", vec![info.intermediate]), ("root", info.roots)];
    let named = certificates
        .into_iter()
        .flat_map(|(what, list)| list.into_iter().map(move |it| (what, it)));
    named
        .filter_map(|(what, certificate)| {
            let object = format!("{what} {}", certificate.subject);
            age(&object, &certificate.not_before, &certificate.not_after, HALF, now)
        })
        .collect()
}

fn of_workload(row: &CertificateRow, now: SystemTime) -> Vec<Finding> {
    let failing = (!row.last_error.is_empty())
        .then(|| Finding::new(Kind::CertificateRenewalFailing, &row.id, &row.last_error));
    let age = age(&row.id, &row.not_before, &row.not_after, RENEWED_BY, now);
    failing.into_iter().chain(age).collect()
}

fn age(object: &str, from: &str, until: &str, half: i64, now: SystemTime) -> Option<Finding> {
    let percent = spent_percent(from, until, now)?;
    let kind = match percent {
        OVER.. => Kind::CertificateExpired,
        ENDING.. => Kind::CertificateEnding,
        percent if percent >= half => Kind::CertificateHalfSpent,
        _ => return None,
    };
    Some(Finding::new(
        kind,
        object,
        format!("{}% of its life is over; it ends at {until}", percent.min(OVER)),
    ))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
