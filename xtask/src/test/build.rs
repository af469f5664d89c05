//! One cargo invocation that builds the agent and every test executable, and what it says about
//! where they are.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::ring::Ring;
use crate::{command, workspace::Workspace};

/// The agent's package and target.
const AGENT: &str = "undermesh";

/// What the build left behind.
#[derive(Debug)]
pub(crate) struct Built {
    /// The executable `undermesh`.
    pub(crate) agent: PathBuf,
    /// Every test executable.
    pub(crate) tests: Vec<TestExecutable>,
}

/// One executable made of tests.
#[derive(Debug)]
pub(crate) struct TestExecutable {
    /// Package and target, for the reader.
    pub(crate) label: String,
    /// The ring it belongs to.
    pub(crate) ring: Ring,
    executable: PathBuf,
    /// The package's directory, where cargo would run it.
    directory: PathBuf,
    /// The target's name.
    target: String,
}

impl Built {
    /// Executables of the namespace ring, by their target's name.
    pub(crate) fn netns_tests(&self) -> impl Iterator<Item = (&str, &Path)> {
        let netns = self.tests.iter().filter(|test| test.ring == Ring::Netns);
        netns.map(|test| (test.target.as_str(), test.executable.as_path()))
    }

    /// One of them.
    pub(crate) fn netns_test(&self, target: &str) -> Option<&Path> {
        self.netns_tests().find(|(name, _)| *name == target).map(|(_, executable)| executable)
    }
}

impl TestExecutable {
    /// Runs it as `cargo test` would.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command
    }
}

/// A line of `--message-format=json`, as far as it is needed here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds every target of the workspace but benchmarks with the one development profile.
pub(crate) fn everything(workspace: &Workspace) -> Result<Built> {
    let mut cargo = command::cargo();
    cargo
        .current_dir(workspace.root())
        .args(["build", "--workspace", "--lib", "--bins", "--tests"])
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    let built = read(lines);
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("the workspace does not build; the compiler's messages are above");
    }
    built
}

fn read(lines: impl Iterator<Item = String>) -> Result<Built> {
    let mut agent = None;
    let mut tests = Vec::new();
    // Read to the end whatever is found: cargo would be stopped by a closed pipe.
    let mut problem = Ok(());
    for line in lines {
        match artifact(&line) {
            Ok(Some(Artifact::Agent(path))) => agent = Some(path),
            Ok(Some(Artifact::Test(test))) => tests.push(test),
            Ok(None) => {}
            Err(error) => problem = problem.and(Err(error)),
        }
    }
    problem?;
    tests.sort_by(|a, b| a.label.cmp(&b.label));
    Ok(Built {
        agent: agent.context("cargo built no executable `undermesh`: is agent/ a member?")?,
        tests,
    })
}

enum Artifact {
    Agent(PathBuf),
    Test(TestExecutable),
}

fn artifact(line: &str) -> Result<Option<Artifact>> {
    let message: Message = serde_json::from_str(line)
        .with_context(|| format!("cargo wrote a line that is not a message: {line}"))?;
    if message.reason != "compiler-artifact" {
        return Ok(None);
    }
    let (Some(target), Some(profile), Some(executable), Some(manifest), Some(id)) = (
        message.target,
        message.profile,
        message.executable,
        message.manifest_path,
        message.package_id,
    ) else {
        return Ok(None);
    };
    let is = |kind: &str| target.kind.iter().any(|it| it == kind);
    let package = package_name(&id);
    if !profile.test {
        let is_agent = package == AGENT && target.name == AGENT && is("bin");
        return Ok(is_agent.then_some(Artifact::Agent(executable)));
    }
    if is("bench") {
        return Ok(None);
    }
    let directory = manifest.parent().context("a manifest without directory")?;
    Ok(Some(Artifact::Test(TestExecutable {
        label: format!("{package}, {} {}", target.kind.join("+"), target.name),
        ring: Ring::of(package, &target.name, is("test"))?,
        executable,
        directory: directory.to_path_buf(),
        target: target.name,
    })))
}

/// The name in a package id: `path+file:///DIR#NAME@VERSION`, or `path+file:///DIR/NAME#VERSION`.
fn package_name(id: &str) -> &str {
    let (path, fragment) = id.rsplit_once('#').unwrap_or(("", id));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, name: &str, kind: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/r/p/Cargo.toml",
               "target":{{"name":"{name}","kind":["{kind}"]}},"profile":{{"test":{test}}},
               "executable":"/r/target/debug/deps/{name}-1"}}"#
        )
    }

    #[test]
    fn the_agent_and_the_tests_are_found_among_cargos_messages() {
        let tests = "path+file:///r/tests#undermesh-tests@0.1.0";
        let agent = "path+file:///r/agent#undermesh@0.1.0";
        let lines = [
            r#"{"reason":"build-script-executed","package_id":"x"}"#.to_owned(),
            message(tests, "netns_path", "test", true),
            message(agent, "undermesh", "bin", false),
            message(agent, "undermesh", "bin", true),
            message("path+file:///r/xtask#0.1.0", "xtask", "bin", false),
            message(tests, "speed", "bench", true),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = read(lines.into_iter()).unwrap();
        assert_eq!(built.agent, PathBuf::from("/r/target/debug/deps/undermesh-1"));
        let found: Vec<_> =
            built.tests.iter().map(|test| (test.label.as_str(), test.ring)).collect();
        assert_eq!(
            found,
            [
                ("undermesh, bin undermesh", Ring::Unit),
                ("undermesh-tests, test netns_path", Ring::Netns),
            ]
        );
        assert_eq!(built.tests[0].directory, PathBuf::from("/r/p"));
    }

    #[test]
    fn a_build_without_the_agent_is_an_error_that_says_so() {
        let error = read(std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("no executable `undermesh`"), "{error}");
    }

    #[test]
    fn both_forms_of_package_id_give_the_name() {
        assert_eq!(
            package_name("path+file:///r/agent/model#undermesh-model@0.1.0"),
            "undermesh-model"
        );
        assert_eq!(package_name("path+file:///r/xtask#0.1.0"), "xtask");
    }
}
