//! Runs `undermesh doctor` on a node of a rig, and reads what it says.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{programs::locate, rig::Rig};

/// A run that is being described.
#[derive(Debug)]
pub struct Doctor {
    command: Command,
    /// Shell commands that run before it, in a mount namespace of its own.
    setup: Option<String>,
    /// A command line that runs it, `setpriv ...` for example.
    wrapper: Vec<String>,
    args: Vec<String>,
}

/// What it says.
#[derive(Clone, Debug, Deserialize)]
pub struct Diagnosis {
    /// Its exit code.
    #[serde(skip)]
    pub code: i32,
    /// Every row.
    pub findings: Vec<FindingRow>,
    /// The kernel's features.
    pub features: Vec<FeatureRow>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FindingRow {
    /// Name of the finding.
    pub id: String,
    /// The check that found it.
    pub check: String,
    /// `ok`, `note`, `warning` or `error`.
    pub severity: String,
    /// What it is about.
    pub object: String,
    /// What is the case.
    pub found: String,
}

/// A feature of the kernel.
#[derive(Clone, Debug, Deserialize)]
pub struct FeatureRow {
    /// Its name.
    pub feature: String,
    /// Whether it is there.
    pub availability: AvailabilityRow,
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AvailabilityRow {
    /// `Available`, `Missing` or `Unknown`, in camel case.
    pub state: String,
}

impl Doctor {
    /// Sets a flag, instead of what it is for the node's agent.
    #[must_use]
    pub fn set(self, flag: &str, value: &str) -> Self {
        self.without(flag).flags([flag, value])
    }

    fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(flags.into_iter().map(str::to_owned));
        self
    }

    /// Removes a flag and its value.
    #[must_use]
    pub fn without(mut self, flag: &str) -> Self {
        if let Some(at) = self.args.iter().position(|arg| arg == flag) {
            self.args.drain(at..at + 2);
        }
        self
    }

    /// Runs shell commands first, in a mount namespace that only they and the doctor see.
    #[must_use]
    pub fn after(mut self, setup: &str) -> Self {
        self.setup = Some(setup.to_owned());
        self
    }

    /// Runs it by another program.
    #[must_use]
    pub fn by<'a>(mut self, wrapper: impl IntoIterator<Item = &'a str>) -> Self {
        self.wrapper = wrapper.into_iter().map(str::to_owned).collect();
        self
    }

    fn command(mut self) -> Result<Command> {
        if let Some(setup) = &self.setup {
            let script = format!("set -e\n{setup}\nexec \"$@\"");
            self.command.args(["unshare", "--mount", "sh", "-c", &script, "sh"]);
        }
        self.command.args(&self.wrapper).arg(locate("undermesh")?).arg("doctor").args(&self.args);
        Ok(self.command)
    }

    /// Runs it as people do, and returns what it prints.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn text(self) -> Result<String> {
        let output = self.command()?.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it.
    ///
    /// # Errors
    /// Where it prints no report.
    pub fn run(self) -> Result<Diagnosis> {
        let output = self.flags(["-o", "json"]).command()?.output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let report: Result<Diagnosis, _> = serde_json::from_slice(&output.stdout);
        let report = report.with_context(|| format!("no report: {complaint}"))?;
        Ok(Diagnosis { code: output.status.code().context("killed")?, ..report })
    }
}

impl Diagnosis {
    /// The first finding of a name.
    ///
    /// # Errors
    /// Where there is none; the error lists all others.
    pub fn find(&self, id: &str) -> Result<&FindingRow> {
        let found = self.findings.iter().find(|row| row.id == id);
        found.with_context(|| format!("no {id} in {:#?}", self.findings))
    }

    /// That there is none of this name.
    ///
    /// # Errors
    /// Where there is one.
    pub fn lacks(&self, id: &str) -> Result<()> {
        let found = self.findings.iter().find(|row| row.id == id);
        ensure!(found.is_none(), "there is a {id}: {found:?}");
        Ok(())
    }

    /// Whether a check has found nothing worse than notes.
    pub fn is_ok(&self, check: &str) -> bool {
        self.findings.iter().any(|row| row.check == check && row.severity == "ok")
    }
}

impl Rig {
    /// The doctor for a node, with the settings of its agent.
    ///
    /// # Errors
    /// As [`Rig::node`].
    pub fn doctor(&self, node: &str) -> Result<Doctor> {
        let settings = &self.node(node)?.settings;
        let mut args = Vec::new();
        for (key, flag) in [
            ("node", "--node"),
            ("manifests", "--manifests"),
            ("caDir", "--ca-dir"),
            ("cgroup", "--cgroup"),
            ("pinDir", "--pin-dir"),
        ] {
            let value = settings.get(key).with_context(|| format!("no {key}"))?;
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        Ok(Doctor { command: self.command_on(node)?, setup: None, wrapper: Vec::new(), args })
    }

    /// The same, for a node on which nothing runs yet.
    ///
    /// # Errors
    /// As [`Rig::node`].
    pub fn preflight(&self, node: &str) -> Result<Doctor> {
        Ok(self.doctor(node)?.flags(["--preflight"]))
    }
}
