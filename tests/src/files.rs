//! Files on disk for as long as a test runs, and commands about them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::programs::locate;

/// A directory of its own, which goes with it.
#[derive(Debug)]
pub struct Files(PathBuf);

impl Files {
    /// With these files, each a name and a text.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("undermesh-files-{}-{id}", process::id()));
        // One that another process of this number has left would be part of what is tested.
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = Self(dir);
        for (name, text) in files {
            fs::write(dir.path().join(name), text)?;
        }
        Ok(dir)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `undermesh`, run where they are.
    ///
    /// # Errors
    /// Where it has not been built.
    pub fn undermesh(&self, command: &str) -> Result<Command> {
        let mut undermesh = Command::new(locate("undermesh")?);
        undermesh.arg(command).current_dir(&self.0);
        Ok(undermesh)
    }

    /// `undermesh explain`, of manifests.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn explain(&self, args: &[&str]) -> Result<Output> {
        Ok(self.undermesh("explain")?.arg("--files").arg(&self.0).args(args).output()?)
    }

    /// Its exit code, verdict and reason, and the whole answer.
    ///
    /// # Errors
    /// As [`Self::explain`], and where it does not answer.
    pub fn explained(&self, args: &[&str]) -> Result<(Option<i32>, String, Value)> {
        let output = self.explain(&[args, &["-o", "json"]].concat())?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let word = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Ok((output.status.code(), format!("{} {}", word("verdict"), word("reason")), answer))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
