//! Named network namespaces, and doing things inside them.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps names.
const DIR: &str = "/run/netns";

/// A network namespace with a name, as `ip netns` makes them. Dropping the value leaves it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace; its loopback interface is down.
    ///
    /// # Errors
    /// Where `ip` cannot, for example because the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]), "")?;
        Ok(Self { name: name.to_owned() })
    }

    /// Names of all namespaces that start with `prefix`.
    pub(crate) fn names(prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(DIR).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }

    /// Removes a name. The namespace itself goes when the last socket and process in it has gone.
    pub(crate) fn delete(name: &str) -> Result<()> {
        run(Command::new("ip").args(["netns", "del", name]), "")
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that leads to it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(&self.name)
    }

    /// Runs `call` on a thread that has entered the namespace. Sockets it opens stay there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn run<R: Send>(&self, call: impl FnOnce() -> R + Send) -> Result<R> {
        thread::scope(|scope| {
            let entered = scope.spawn(|| enter_netns(&self.path()).map(|()| call()));
            let panicked = |_| anyhow!("a call inside {} panicked", self.name);
            entered.join().map_err(panicked)?
        })
    }

    /// Runs `ip -batch` inside the namespace, one command a line.
    ///
    /// # Errors
    /// Where `ip` refuses a line; the error quotes what it says.
    pub fn ip(&self, batch: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch)
    }

    /// Writes kernel settings, `net/ipv4/ip_forward` for example.
    ///
    /// # Errors
    /// Where the kernel has no such setting, or refuses the value.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(Path::new("/proc/sys").join(key), value)
                    .with_context(|| format!("cannot set {key} to {value} in {}", self.name))
            })
        })?
    }
}

/// Moves the calling thread into the namespace behind `path`; a single-threaded process moves as
/// a whole.
///
/// # Errors
/// Where the path does not lead to a network namespace.
pub fn enter_netns(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("no namespace at {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the namespace at {}", path.display()))
}

/// Runs a command to its end, feeding it `input`; its complaints become the error.
fn run(command: &mut Command, input: &str) -> Result<()> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}; is iproute2 installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that stops early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed: {}", complaint.trim());
    Ok(())
}
