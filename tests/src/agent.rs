//! An agent process on a node: its configuration, its life, and its pages.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    access_log::AccessLog, footprint::Footprint, http, netns::Netns, poll::wait_for,
    programs::locate, status::Status, topology::Node,
};

const ADMIN: u16 = 15000;
const METRICS: u16 = 15020;
const READINESS: u16 = 15021;
/// Generous: a busy machine compiles and signs slowly.
const WITHIN: Duration = Duration::from_secs(30);
const TAIL_LINES: usize = 30;

/// The configuration file of an agent, as keys and values.
#[derive(Clone, Debug)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// What every agent of a rig needs.
    pub(crate) fn of(footprint: &Footprint, node: &str, cgroup: &Path) -> Self {
        let dir = footprint.dir();
        let path = |path: PathBuf| path.display().to_string();
        let pairs = [
            ("node", node.to_owned()),
            ("manifests", path(dir.join("manifests"))),
            ("caDir", path(dir.join("ca"))),
            ("cgroup", path(cgroup.join("pods"))),
            ("pinDir", path(footprint.bpffs().join(node))),
            ("accessLog", path(dir.join(node).join("access.log"))),
        ];
        Self(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// Sets a key (`mtls`, `svidLifetime`, ...) for the next start.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// Leaves a key out at the next start.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// The value of a key that has been set.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The file's text.
    fn yaml(&self) -> String {
        self.0.iter().fold(String::new(), |mut yaml, (key, value)| {
            // Every JSON string is a YAML string; writing to a string cannot fail.
            let _ = match value.as_str() {
                "true" | "false" => writeln!(yaml, "{key}: {value}"),
                number if number.parse::<u32>().is_ok() => writeln!(yaml, "{key}: {number}"),
                list if list.starts_with('[') && list.ends_with(']') => {
                    writeln!(yaml, "{key}: {list}")
                }
                value => writeln!(yaml, "{key}: {value:?}"),
            };
            yaml
        })
    }
}

/// A running agent. Dropping the value kills it.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    netns: Netns,
    log: PathBuf,
    access_log: AccessLog,
}

impl Agent {
    /// Starts the agent of a node with the node's settings, in the node's namespace and in a cgroup
    /// of its own. Does not wait for it.
    ///
    /// # Errors
    /// Where the binary is not built, or the process cannot be started.
    pub fn start(node: &Node) -> Result<Self> {
        Self::start_in(node, &node.cgroup.join("agent"))
    }

    /// Starts it in another cgroup.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(node: &Node, cgroup: &Path) -> Result<Self> {
        let config = node.dir.join("agent.yaml");
        fs::write(&config, node.settings.yaml())?;
        let log = node.dir.join("agent.log");
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(locate("undermesh-pod")?);
        command
            .arg("--netns")
            .arg(node.netns.path())
            .arg("--cgroup")
            .arg(cgroup)
            .args(["exec", "--"])
            .arg(locate("undermesh")?)
            .args(["agent", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            // Ctrl-C is for the owner, who ends its agents in its own order.
            .process_group(0);
        if let Some(clock) = &node.clock {
            clock.drive(&mut command);
        }
        let child = command.spawn().context("cannot start an agent")?;
        let access_log = AccessLog::at(node.settings.get("accessLog").unwrap_or_default().into());
        Ok(Self { child, netns: node.netns.clone(), log, access_log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its access log.
    pub fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    /// Everything it has written to its standard output and error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file of that.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// The status page.
    ///
    /// # Errors
    /// Where the agent does not answer.
    pub fn status(&self) -> Result<Status> {
        let body = self.admin("/status")?;
        serde_json::from_str(&body).with_context(|| format!("unexpected status page: {body}"))
    }

    /// An admin page's body.
    ///
    /// # Errors
    /// Where the agent does not answer with 200.
    pub fn admin(&self, path: &str) -> Result<String> {
        self.page(ADMIN, path)
    }

    /// The metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Where the agent does not answer with 200.
    pub fn metrics(&self) -> Result<String> {
        self.page(METRICS, "/metrics")
    }

    /// The sum of a metric over all its series that have `label`.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn metric(&self, name: &str, label: &str) -> Result<u64> {
        self.sum(name, |labels| labels.contains(label))
    }

    /// The sum of a metric over all its series whose labels are `wanted`.
    pub(crate) fn sum(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Result<u64> {
        let text = self.metrics()?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.strip_prefix('{')?.rsplit_once("} ")?;
            wanted(labels).then(|| value.parse::<u64>().ok())?
        });
        Ok(values.sum())
    }

    /// Status code and text of the readiness page.
    ///
    /// # Errors
    /// Where the agent does not answer.
    pub fn readiness(&self) -> Result<(u16, String)> {
        http::get(&self.netns, READINESS, "/healthz/ready")
    }

    fn page(&self, port: u16, path: &str) -> Result<String> {
        let (code, body) = http::get(&self.netns, port, path)?;
        ensure!(code == 200, "{path} answered {code}: {body}");
        Ok(body)
    }

    /// Number of file descriptors that the process has open.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn open_files(&self) -> Result<usize> {
        let dir = format!("/proc/{}/fd", self.pid());
        Ok(fs::read_dir(&dir).with_context(|| format!("no {dir}"))?.count())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that was ever resident, in bytes.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// Resident memory that is no file's, in bytes: without the mapped program.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        self.memory("RssAnon:")
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {name} line"))? * 1024)
    }

    /// Waits until the agent says that it is ready.
    ///
    /// # Errors
    /// When it ends, or does not get ready in time; the error ends with its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let waited = wait_for("the agent to be ready", WITHIN, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let (code, text) = self.readiness()?;
            ensure!(code == 200, "readiness answers {code}: {text}");
            Ok(Some(Ok(())))
        });
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(anyhow::anyhow!("the agent ended ({status}){}", self.tail())),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// Waits until the status page is as `wanted`.
    ///
    /// # Errors
    /// When it does not get so within `within`; the error ends with the agent's log.
    pub fn wait_status(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let mut last = None;
        let waited = wait_for(what, within, || {
            let status = self.status()?;
            let ok = wanted(&status);
            last = Some(status.clone());
            Ok(ok.then_some(status))
        });
        waited.with_context(|| format!("status is {last:?}{}", self.tail()))
    }

    /// Waits until a pod is enrolled.
    ///
    /// # Errors
    /// When it is not in time; the error ends with the agent's log.
    pub fn wait_enrolled(&self, pod: &str) -> Result<()> {
        let what = format!("pod {pod} to be enrolled");
        self.wait_status(&what, WITHIN, |status| status.is_enrolled(pod))?;
        Ok(())
    }

    /// Waits until it is this agent, and not one before it, that answers on the node, and is ready.
    ///
    /// # Errors
    /// When that is not so in time; the error ends with its log.
    pub fn wait_in_charge(&self) -> Result<()> {
        let pid = self.pid();
        let in_charge = |status: &Status| status.agent.pid == pid && status.agent.ready;
        self.wait_status("the agent to be in charge", WITHIN, in_charge)?;
        Ok(())
    }

    /// Waits for its end, which it finds by itself, and returns how it ended.
    ///
    /// # Errors
    /// When it goes on for longer than `within`; the error ends with its log.
    pub fn wait_end(&mut self, within: Duration) -> Result<ExitStatus> {
        let ended = wait_for("the agent to end", within, || Ok(self.child.try_wait()?));
        ended.with_context(|| self.tail())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Where the process cannot be asked.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The end of its log, for error messages.
    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!("\nthe agent's log ends with:\n{}", lines[from..].join("\n"))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        kill_process(pid, signal).context("cannot signal the agent")
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// Where the process cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.signal().is_some(), "the agent had ended before: {status}");
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it takes longer than the longest drain that a rig configures.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let stopped =
            wait_for("the agent to stop", Duration::from_secs(60), || Ok(self.child.try_wait()?));
        stopped.with_context(|| self.tail())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
