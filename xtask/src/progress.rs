//! Telling the user about slow steps: a spinner on a terminal, plain lines anywhere else.

use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Does `work`, saying `what` while it runs and how long it took once it is done.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let spinner = if stderr().is_terminal() {
        spinner(what)
    } else {
        eprintln!("{what} ...");
        ProgressBar::hidden()
    };
    let result = work();
    spinner.finish_and_clear();
    let outcome = if result.is_ok() { "done" } else { "failed" };
    eprintln!("{what}: {outcome} in {:.1?}", started.elapsed());
    result
}

fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
