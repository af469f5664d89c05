//! Whether the clock can be right.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use undermesh_datapath::{ClockState, clock_state};
use undermesh_identity::{CaDirectory, spent_percent};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

/// Files younger than that are no sign: clocks of two machines always differ a little.
const TOLERANCE: Duration = Duration::from_secs(60);
/// Files of a directory that are looked at.
const MAX_FILES: usize = 1000;

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let now = SystemTime::now();
    let outline = &situation.outline;
    let state = clock_state().ok().and_then(unsynchronised);
    let dirs = [Some(&outline.ca_dir), outline.manifests.as_ref()];
    let ahead = dirs.into_iter().flatten().filter_map(|dir| from_the_future(dir, now));
    state.into_iter().chain(before_ca(&outline.ca_dir, now)).chain(ahead).collect()
}

fn unsynchronised(state: ClockState) -> Option<Finding> {
    let error = Duration::from_micros(state.maximum_error_us.unsigned_abs());
    let found = format!("nothing keeps it in step; the kernel expects an error of up to {error:?}");
    (!state.synchronised).then(|| Finding::new(Kind::ClockUnsynchronised, "clock", found))
}

/// An authority that begins in the future was made on a machine with another idea of time.
fn before_ca(dir: &Path, now: SystemTime) -> Vec<Finding> {
    let info = CaDirectory::open(dir).and_then(|directory| directory.describe());
    let certificates = info.map(|info| [vec![info.intermediate], info.roots].concat());
    let early = certificates.unwrap_or_default().into_iter().filter(|certificate| {
        spent_percent(&certificate.not_before, &certificate.not_after, now).is_some_and(|it| it < 0)
    });
    early
        .map(|certificate| {
            let found = format!("it is valid from {}", certificate.not_before);
            Finding::new(Kind::ClockBeforeCa, certificate.subject, found)
        })
        .collect()
}

/// The file of a directory that was written furthest in the future.
fn from_the_future(dir: &Path, now: SystemTime) -> Option<Finding> {
    let entries = fs::read_dir(dir).ok()?.flatten().take(MAX_FILES);
    let times =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())));
    let (written, path) = times.max()?;
    let ahead = written.duration_since(now).ok().filter(|ahead| *ahead > TOLERANCE)?;
    let found = format!("it was written {} seconds from now", ahead.as_secs());
    Some(Finding::new(Kind::ClockBehindFiles, path.display().to_string(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_nothing_keeps_in_step_is_a_finding() {
        let state = |synchronised| ClockState { synchronised, maximum_error_us: 16_000_000 };
        assert!(unsynchronised(state(true)).is_none());
        assert!(unsynchronised(state(false)).unwrap().found.contains("up to 16s"));
    }
}
