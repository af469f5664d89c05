//! Waiting for a condition, with a deadline instead of a guess.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Short enough to measure sub-second effects with.
const STEP: Duration = Duration::from_millis(10);

/// Asks `probe` until it has an answer.
///
/// # Errors
/// When `within` has passed; the error names `what` was waited for and the probe's last complaint.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut complaint = String::new();
    loop {
        match probe() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) => complaint = format!(" (last: {error:#})"),
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} in vain for {what}{complaint}");
        }
        thread::sleep(STEP);
    }
}
