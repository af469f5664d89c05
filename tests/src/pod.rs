//! Drives sockets inside a pod: a process in the pod's namespace and cgroup (`undermesh-pod`) makes
//! every system call on command, one at a time, and says how each one ended.

mod errno;
mod handle;
pub mod http;
pub mod protocol;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

pub use errno::errno_name;
pub use handle::{Conn, Listener, Udp};
use http::{Ask, Load, LoadReport, Reply};
use protocol::{Answer, Behaviour, Burst, BurstReport, ConnectOptions, Failure, Opened, Request};

use crate::{netns::Netns, programs::locate, topology::PodPlace};

/// How long a call may take where nothing else is said.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A process inside a pod. Dropping it ends the process, and with it every socket.
#[derive(Debug)]
pub struct Pod {
    name: String,
    child: Child,
    pipes: Mutex<Pipes>,
}

#[derive(Debug)]
struct Pipes {
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Pod {
    pub(crate) fn start(place: &PodPlace) -> Result<Self> {
        Self::start_in(&place.spec.name, &place.netns, &place.cgroup)
    }

    pub(crate) fn start_in(name: &str, netns: &Netns, cgroup: &Path) -> Result<Self> {
        let mut child = Command::new(locate("undermesh-pod")?)
            .arg("--netns")
            .arg(netns.path())
            .arg("--cgroup")
            .arg(cgroup)
            .arg("drive")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start undermesh-pod")?;
        let pipes = Pipes {
            requests: child.stdin.take().context("no standard input")?,
            answers: BufReader::new(child.stdout.take().context("no standard output")?),
        };
        let pod = Self { name: name.to_owned(), child, pipes: Mutex::new(pipes) };
        pod.call::<()>(&Request::Ping)
            .with_context(|| format!("no process can be started in pod {}", pod.name))?;
        Ok(pod)
    }

    /// Process id of the process inside the pod.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Listens at an address; port 0 takes a free one ([`Listener::address`]).
    ///
    /// # Errors
    /// As the system calls fail; so for every call below.
    pub fn listen(&self, at: SocketAddr, behaviour: Behaviour) -> Result<Listener<'_>, Failure> {
        let opened: Opened = self.call(&Request::Listen { at, behaviour, mptcp: false })?;
        Ok(Listener::new(self, opened))
    }

    /// Listens by Multipath TCP.
    ///
    /// # Errors
    /// As the system calls fail.
    pub fn listen_mptcp(
        &self,
        at: SocketAddr,
        behaviour: Behaviour,
    ) -> Result<Listener<'_>, Failure> {
        let opened: Opened = self.call(&Request::Listen { at, behaviour, mptcp: true })?;
        Ok(Listener::new(self, opened))
    }

    /// Listens at `count` consecutive ports, all with the same behaviour.
    ///
    /// # Errors
    /// As the system calls fail.
    pub fn listen_many(
        &self,
        first: SocketAddr,
        count: u16,
        behaviour: Behaviour,
    ) -> Result<(), Failure> {
        self.call(&Request::ListenMany { first, count, behaviour })
    }

    /// Connects and waits for the outcome.
    ///
    /// # Errors
    /// As `connect` fails, `ECONNREFUSED` for example.
    pub fn connect(&self, to: SocketAddr) -> Result<Conn<'_>, Failure> {
        self.connect_with(to, ConnectOptions::default())
    }

    /// Connects with options that are set before.
    ///
    /// # Errors
    /// As the system calls fail.
    pub fn connect_with(
        &self,
        to: SocketAddr,
        options: ConnectOptions,
    ) -> Result<Conn<'_>, Failure> {
        let opened: Opened = self.call(&Request::Connect { to, options })?;
        Ok(Conn::new(self, opened.id))
    }

    /// Opens a UDP socket.
    ///
    /// # Errors
    /// As the system calls fail.
    pub fn udp(&self, at: SocketAddr) -> Result<Udp<'_>, Failure> {
        let opened: Opened = self.call(&Request::UdpBind { at })?;
        Ok(Udp::new(self, opened))
    }

    /// Makes many connections, from several threads at once.
    ///
    /// # Errors
    /// Where the process is gone; what happens to connections is in the report.
    pub fn burst(&self, burst: Burst) -> Result<BurstReport, Failure> {
        self.call(&Request::Burst(burst))
    }

    /// Makes requests as often as they say, each on a connection of its own.
    ///
    /// # Errors
    /// Where the process is gone; what happens to requests is in the replies.
    pub fn ask(&self, ask: Ask) -> Result<Vec<Reply>, Failure> {
        self.call(&Request::Ask(Box::new(ask)))
    }

    /// The heads of requests with this mark that servers of this process have heard.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn heard(&self, mark: &str) -> Result<Vec<String>, Failure> {
        self.call(&Request::Heard { mark: mark.to_owned() })
    }

    /// Lets servers of this process answer requests with this mark that they hold, and will hold.
    ///
    /// # Errors
    /// Where the process is gone; so for all below.
    pub fn release(&self, mark: &str) -> Result<(), Failure> {
        self.call(&Request::Release { mark: mark.to_owned() })
    }

    /// Begins to make requests, beside whatever else is called.
    ///
    /// # Errors
    /// As [`Self::release`], and where it makes requests already.
    pub fn begin_load(&self, load: Load) -> Result<(), Failure> {
        self.call(&Request::BeginLoad(Box::new(load)))
    }

    /// How requests have gone so far.
    ///
    /// # Errors
    /// As [`Self::end_load`].
    pub fn load_so_far(&self) -> Result<LoadReport, Failure> {
        self.call(&Request::LoadSoFar)
    }

    /// Makes no more requests, once those under way are answered.
    ///
    /// # Errors
    /// As [`Self::release`], and where it makes none.
    pub fn end_load(&self) -> Result<LoadReport, Failure> {
        self.call(&Request::EndLoad)
    }

    pub(crate) fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let gone = |error: &dyn std::fmt::Display| Failure {
            errno: "EPIPE".to_owned(),
            context: format!("the process in pod {} is gone: {error}", self.name),
        };
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_string(request).map_err(|e| gone(&e))?;
        writeln!(pipes.requests, "{text}").map_err(|e| gone(&e))?;
        let mut line = String::new();
        pipes.answers.read_line(&mut line).map_err(|e| gone(&e))?;
        match serde_json::from_str(&line).map_err(|e| gone(&e))? {
            Answer::Ok(value) => serde_json::from_value(value).map_err(|e| gone(&e)),
            Answer::Err(failure) => Err(failure),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BurstReport {
    /// Failures as one line for a message.
    pub fn describe(&self) -> String {
        let failures: &BTreeMap<String, u64> = &self.failures;
        format!(
            "{} right, {} wrong, failures {failures:?}, in {} ms; {}",
            self.ok, self.wrong, self.elapsed_ms, self.example
        )
    }
}
