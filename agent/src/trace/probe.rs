//! One connection as if a pod had made it: a short-lived process, moved into the pod's cgroup, whose socket is opened in the
//! pod's network namespace. The programs cannot tell it from the pod's own, and lead it where they lead those.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use undermesh_datapath::{CgroupRoot, Netns, NetnsId, socket_cookie};

/// How long a connection without a request is held open, so that it can be seen what becomes of it.
const HOLD: Duration = Duration::from_millis(300);
/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;
/// What a probe may take beyond its own limit, before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Connects from inside a pod, for `undermesh trace --send`.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    #[arg(long)]
    netns: PathBuf,
    #[arg(long)]
    cgroup: Option<PathBuf>,
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds.
    #[arg(long)]
    timeout: u64,
    #[arg(long, requires = "path")]
    method: Option<String>,
    #[arg(long, requires = "host")]
    path: Option<String>,
    #[arg(long)]
    host: Option<String>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) netns: PathBuf,
    pub(super) to: SocketAddr,
    pub(super) timeout: Duration,
    /// Method, path and host of a request.
    pub(super) request: Option<(String, String, String)>,
}

/// How it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probed {
    /// The address and port that it came from.
    pub(crate) source: String,
    /// The kernel's number for its socket.
    pub(crate) socket_cookie: u64,
    /// The cgroup that its socket belongs to.
    pub(crate) cgroup: String,
    /// Microseconds until `connect` had succeeded.
    pub(crate) connected_us: Option<u64>,
    /// Microseconds until the first byte of an answer.
    pub(crate) first_byte_us: Option<u64>,
    /// Of the answer to a request.
    pub(crate) status: Option<u16>,
    /// What went wrong; empty for nothing.
    pub(crate) error: String,
}

impl Probe {
    /// Sends it, and waits for the end.
    pub(super) fn run(&self) -> Probed {
        self.try_to()
            .unwrap_or_else(|error| Probed { error: format!("{error:#}"), ..Probed::default() })
    }

    fn try_to(&self) -> Result<Probed> {
        let cgroup = cgroup_of(&self.netns).context("no process of the pod can be found")?;
        let own = std::env::current_exe().context("the agent's own program is not known")?;
        let mut command = Command::new(own);
        command.arg("probe").arg("--netns").arg(&self.netns).arg("--cgroup").arg(cgroup);
        command.args(["--to", &self.to.to_string()]);
        command.args(["--timeout", &self.timeout.as_millis().to_string()]);
        if let Some((method, path, host)) = &self.request {
            command.args(["--method", method, "--path", path, "--host", host]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().context("a probe cannot be started")?;
        let output = wait(child, self.timeout + GRACE)?;
        serde_json::from_str(&output).context("the probe has died")
    }
}

/// What a child says; it is killed when its time is over.
fn wait(mut child: Child, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait()?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    Ok(said)
}

/// The cgroup of a process that runs in a network namespace.
fn cgroup_of(netns: &Path) -> Result<PathBuf> {
    let wanted = NetnsId::of(netns)?;
    let root = CgroupRoot::find()?;
    let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let mut there = processes
        .filter(|process| NetnsId::of(&process.join("ns/net")).is_ok_and(|id| id == wanted));
    let cgroups = there.find_map(|process| fs::read_to_string(process.join("cgroup")).ok());
    let cgroups = cgroups.context("nobody runs in its network namespace")?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(root.resolve(Path::new(path.context("its processes are in no cgroup of version 2")?)))
}

/// The process itself. It always says how it went.
pub(crate) fn run(args: &ProbeArgs) -> Result<ExitCode> {
    let mut probed = Probed::default();
    if let Err(error) = connect(args, &mut probed) {
        probed.error = format!("{error:#}");
    }
    println!("{}", serde_json::to_string(&probed)?);
    Ok(ExitCode::SUCCESS)
}

fn connect(args: &ProbeArgs, probed: &mut Probed) -> Result<()> {
    // A socket belongs to the cgroup and the namespace in which it is opened.
    if let Some(cgroup) = &args.cgroup {
        CgroupRoot::find()?
            .enter(cgroup)
            .with_context(|| format!("cannot enter cgroup {}", cgroup.display()))?;
        probed.cgroup = cgroup.display().to_string();
    }
    let netns = Netns::open(&args.netns)?;
    let domain = Domain::for_address(args.to);
    let socket = netns.run(|| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))??;
    drop(netns);
    probed.socket_cookie = socket_cookie(&socket)?;
    let limit = Duration::from_millis(args.timeout.max(1));
    let began = Instant::now();
    let since = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let connected = socket.connect_timeout(&args.to.into(), limit);
    if let Ok(local) = socket.local_addr() {
        probed.source = local.as_socket().map(|local| local.to_string()).unwrap_or_default();
    }
    connected.with_context(|| format!("connecting to {}", args.to))?;
    probed.connected_us = Some(since());
    let mut stream: std::net::TcpStream = socket.into();
    let Some(method) = &args.method else {
        stream.set_read_timeout(Some(HOLD.min(limit)))?;
        return match stream.read(&mut [0]) {
            Ok(0) => Err(anyhow::anyhow!("the other side has closed it at once")),
            // Who speaks first answers.
            Ok(_) => {
                probed.first_byte_us = Some(since());
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(error).context("the connection has ended"),
        };
    };
    stream.set_read_timeout(Some(
        limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1)),
    ))?;
    let (path, host) =
        (args.path.as_deref().unwrap_or("/"), args.host.as_deref().unwrap_or_default());
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: undermesh-trace\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while answer.len() < MAX_ANSWER {
        let read = stream.read(&mut part).context("no answer")?;
        probed.first_byte_us.get_or_insert_with(since);
        if read == 0 {
            break;
        }
        answer.extend_from_slice(part.get(..read).unwrap_or_default());
    }
    let head = String::from_utf8_lossy(&answer);
    probed.status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(())
}
