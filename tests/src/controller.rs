//! A controller as a process: its settings, its life, and its pages.

pub mod certificates;
pub mod distribution;
pub mod fleet;
mod grpc;
mod plane;
pub mod watchers;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub use plane::{NAME, Plane};

use crate::{netns::Netns, poll::wait_for, programs::locate};

/// Generous: a busy machine makes keys slowly.
const WITHIN: Duration = Duration::from_secs(30);
const TAIL_LINES: usize = 30;

/// A running controller. Dropping the value kills it.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    netns: Option<Netns>,
    dir: PathBuf,
    name: String,
}

impl Controller {
    /// Starts a replica; its files go to `dir`. What is not in `settings` is as short as it may be, at
    /// loopback addresses and ports of the kernel's choice. Does not wait for it.
    ///
    /// # Errors
    /// Where the binary is not built, or the process cannot be started.
    pub fn start(
        dir: &Path,
        name: &str,
        settings: &[(&str, &str)],
        netns: Option<&Netns>,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let audit = dir.join(format!("{name}.audit.log")).display().to_string();
        let mut all: BTreeMap<&str, &str> = [
            ("replica", name),
            ("grpcAddress", "127.0.0.1:0"),
            ("webhookAddress", "127.0.0.1:0"),
            ("metricsAddress", "127.0.0.1:0"),
            ("readinessAddress", "127.0.0.1:0"),
            ("dashboardAddress", "127.0.0.1:0"),
            ("leaseDuration", "3s"),
            ("leaseRenewDeadline", "2s"),
            ("leaseRetryPeriod", "200ms"),
            ("auditLog", &audit),
            ("logFormat", "json"),
        ]
        .into();
        all.extend(settings.iter().copied());
        let mut yaml = String::new();
        for (key, value) in all {
            match value {
                list if list.starts_with('[') && list.ends_with(']') => {
                    writeln!(yaml, "{key}: {list}")?;
                }
                "true" | "false" => writeln!(yaml, "{key}: {value}")?,
                number if number.parse::<u32>().is_ok() => writeln!(yaml, "{key}: {number}")?,
                value => writeln!(yaml, "{key}: {value:?}")?,
            }
        }
        let config = dir.join(format!("{name}.yaml"));
        fs::write(&config, yaml)?;
        let log = File::create(dir.join(format!("{name}.log")))?;
        let mut command = match netns {
            None => Command::new(locate("undermesh")?),
            Some(netns) => {
                let mut command = Command::new(locate("undermesh-pod")?);
                command.arg("--netns").arg(netns.path()).args(["exec", "--"]);
                command.arg(locate("undermesh")?);
                command
            }
        };
        command.args(["controller", "--config"]).arg(&config).stdin(Stdio::null());
        command.stderr(log.try_clone()?).stdout(log).process_group(0);
        let child = command.spawn().context("cannot start a controller")?;
        Ok(Self { child, netns: netns.cloned(), dir: dir.to_owned(), name: name.to_owned() })
    }

    /// Everything it has written to its standard output and error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// The lines of its audit log about one kind of event; of all kinds, if it is empty.
    pub fn audit(&self, event: &str) -> Vec<Value> {
        let path = self.dir.join(format!("{}.audit.log", self.name));
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| event.is_empty() || line["event"] == event).collect()
    }

    /// Where one of its servers listens: `grpcAddress` and so on. Waits until it does.
    ///
    /// # Errors
    /// When it does not get to that; the error ends with its log.
    pub fn address(&self, setting: &str) -> Result<SocketAddr> {
        let found = wait_for("the controller to listen", WITHIN, || {
            let log = self.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut found = lines.filter(|line| line["setting"] == setting);
            let line = found.next_back();
            Ok(line.and_then(|line| line["address"].as_str()?.parse().ok()))
        });
        found.with_context(|| self.tail())
    }

    /// A page of one of its servers: code and text.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn page(&self, setting: &str, path: &str) -> Result<(u16, String)> {
        let address = self.address(setting)?;
        match &self.netns {
            None => crate::http::get_from(address, path),
            Some(netns) => netns.run(|| crate::http::get_from(address, path))?,
        }
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends, or does not get ready in time; the error ends with its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let waited = wait_for("the controller to be ready", WITHIN, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let (code, text) = self.page("readinessAddress", "/healthz/ready")?;
            ensure!(code == 200, "readiness answers {code}: {text}");
            Ok(Some(Ok(())))
        });
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(anyhow::anyhow!("it ended ({status}){}", self.tail())),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// Its status page.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&self) -> Result<Value> {
        let (code, text) = self.page("metricsAddress", "/status")?;
        ensure!(code == 200, "the status page answers {code}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Whether it says that it is the one that writes.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub fn leads(&self) -> Result<bool> {
        Ok(self.status()?["leads"] == true)
    }

    /// Waits until that is so, or is not.
    ///
    /// # Errors
    /// When it does not get so; the error ends with its log.
    pub fn wait_leads(&self, wanted: bool, within: Duration) -> Result<()> {
        let what = format!("{} to {}lead", self.name, if wanted { "" } else { "not " });
        let waited = wait_for(&what, within, || Ok((self.leads()? == wanted).then_some(())));
        waited.with_context(|| self.tail())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        kill_process(pid, signal).context("cannot signal the controller")
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    /// Where the process cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it takes too long, or does not end well.
    pub fn stop(self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.ended()
    }

    /// Waits for the end of one that was told to stop.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub fn ended(mut self) -> Result<()> {
        let ended = wait_for("the controller to stop", WITHIN, || Ok(self.child.try_wait()?));
        let status = ended.with_context(|| self.tail())?;
        ensure!(status.success(), "it ended with {status}{}", self.tail());
        Ok(())
    }

    /// Bytes of memory that it occupies.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.resident_pid()?);
        let status = fs::read_to_string(path)?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib << 10)
    }

    /// The controller itself, which another program may have started in a namespace.
    fn resident_pid(&self) -> Result<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let child = fs::read_to_string(children).unwrap_or_default();
        let child = child.split_whitespace().next().map(str::parse).transpose()?;
        Ok(child.unwrap_or(self.child.id()))
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!("\nthe controller's log ends with:\n{}", lines[from..].join("\n"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
