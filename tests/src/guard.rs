//! A rig's place on the machine: taken, held, and given back even if its owner dies without doing
//! so: killed, panicked, or stopped by Ctrl-C.
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

/// A claimed footprint. Dropping it removes everything that bears its tag.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) footprint: Footprint,
    guard: Child,
    keep: bool,
}

impl Site {
    pub(crate) fn claim(tag: &str) -> Result<Self> {
        let footprint = Footprint::of(tag)?;
        footprint.ensure_free()?;
        let guard = post_guard(tag)?;
        let site = Self { footprint, guard, keep: false };
        site.footprint.claim()?;
        Ok(site)
    }

    /// Leaves everything where it is, for others to look at and to remove.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }

    /// Ends the guard.
    fn dismiss(&mut self) -> Result<()> {
        if let Some(mut stdin) = self.guard.stdin.take() {
            writeln!(stdin, "{DISMISS}")?;
        }
        self.guard.wait().context("the guard is gone")?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let removed = if self.keep { Ok(()) } else { self.footprint.remove() };
        if let Err(error) = removed.and_then(|()| self.dismiss()) {
            // Standard error is all that is left to a destructor.
            eprintln!("rig {} left something behind: {error:#}", self.footprint.tag());
        }
    }
}

fn post_guard(tag: &str) -> Result<Child> {
    let program = locate("undermesh-pod")?;
    Command::new(&program)
        .args(["guard", "--tag", tag])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The guard's end: waits for the owner's word or death, and removes the rig after the latter.
///
/// # Errors
/// Where something could not be removed.
pub fn watch_owner(tag: &str) -> Result<()> {
    let footprint = Footprint::of(tag)?;
    let mut words = stdin().lock().lines().map_while(Result::ok);
    if words.any(|word| word == DISMISS) {
        return Ok(());
    }
    footprint.remove()
}
