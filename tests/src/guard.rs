//! Cleans up after an owner that died without doing so: killed, panicked, or stopped by Ctrl-C.
//!
//! A small process of its own waits for the end of its standard input. The pipe's other end is
//! held by the owner alone, so the kernel tells of the owner's death, however it comes. Signals of
//! the terminal do not reach the guard: it has a process group of its own.

use std::{
    io::{BufRead, Write, stdin},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{footprint::Footprint, programs::locate};

/// What the owner says to take the guard off.
const DISMISS: &str = "dismiss";

/// The owner's end.
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    pub(crate) fn post(footprint: &Footprint) -> Result<Self> {
        let program = locate("undermesh-pod")?;
        let child = Command::new(&program)
            .args(["guard", "--tag", footprint.tag()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Ends the guard; whatever exists from now on is for others to remove.
    pub(crate) fn dismiss(&mut self) -> Result<()> {
        if let Some(mut stdin) = self.child.stdin.take() {
            writeln!(stdin, "{DISMISS}")?;
        }
        self.child.wait().context("the guard is gone")?;
        Ok(())
    }
}

/// The guard's end: waits for the owner's word or death, and removes the rig after the latter.
///
/// # Errors
/// Where something could not be removed.
pub fn watch_owner(tag: &str) -> Result<()> {
    let footprint = Footprint::of(tag)?;
    let dismissed = stdin()
        .lock()
        .lines()
        .map_while(Result::ok)
        .any(|line| line == DISMISS);
    if dismissed {
        return Ok(());
    }
    footprint.remove()
}
