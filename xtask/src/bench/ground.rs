//! Where measurements take place: a rig of two nodes, with servers in its pods. The same with an
//! agent on each node as without: only the agents differ, and what they load.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result};
use undermesh_tests::{Family, PodSpec, Rig, ServiceSpec};

use super::{
    TAG,
    load::found,
    process::{Processes, listening},
};

/// Where the web server listens.
pub(super) const HTTP_PORT: u16 = 8080;
/// Where iperf3's server listens.
pub(super) const BULK_PORT: u16 = 5201;

/// The nodes of an observed ground.
pub(super) const NODES: [&str; 2] = ["a", "b"];

/// Has requests of `far` looked at by the client's agent.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: far, namespace: shop}
spec: {hosts: [far], http: [{route: [{destination: {host: far}}]}]}
";

/// A client and a server on one node, and on the other a server that is not in the mesh.
pub(super) struct Ground {
    servers: Processes,
    /// The rig.
    pub(super) rig: Rig,
    dir: PathBuf,
    /// Where agents write access logs that are emptied between samples.
    logs: Vec<PathBuf>,
    /// Lines that were in them.
    forgotten: AtomicUsize,
}

/// One way to do the work: from a pod, to an address.
pub(super) struct Variant<'a> {
    /// What it is called in results.
    pub(super) name: &'static str,
    /// Where.
    pub(super) ground: &'a Ground,
    /// The client's pod.
    pub(super) from: &'static str,
    /// The server.
    pub(super) to: IpAddr,
}

impl Variant<'_> {
    /// A command line inside the client's pod, to be completed.
    pub(super) fn client(&self) -> Result<Command> {
        self.ground.rig.command_in(self.from)
    }
}

impl Ground {
    /// Builds the rig and starts the servers; no agent runs.
    pub(super) fn without_mesh(kind: &str) -> Result<Self> {
        let rig = Rig::builder()
            .tag(&format!("{TAG}{}{kind}", std::process::id()))
            .node(
                "a",
                [PodSpec::new("client"), PodSpec::new("server"), PodSpec::new("other").listed()],
            )
            .node("b", [PodSpec::new("outside").unlisted()])
            .service(ServiceSpec::new("near", HTTP_PORT, HTTP_PORT, &["server"]))
            .build()?;
        for pod in ["client", "other"] {
            // A connection per request needs more ports than clients have by default.
            rig.place(pod)?.netns.sysctls(&[("net/ipv4/ip_local_port_range", "16384 65535")])?;
        }
        let mut ground = Self::on(rig);
        for pod in ["server", "outside"] {
            ground.serve(pod)?;
        }
        Ok(ground)
    }

    /// The same, with an agent on each node.
    pub(super) fn with_mesh(kind: &str) -> Result<Self> {
        let mut ground = Self::without_mesh(kind)?;
        ground.rig.start()?;
        Ok(ground)
    }

    /// Where requests of the service `far`, which a pod of the other node answers, are looked at once agents run.
    pub(super) fn observed(kind: &str) -> Result<Self> {
        let far = ServiceSpec::new("far", HTTP_PORT, HTTP_PORT, &["distant"]);
        let rig = Rig::builder()
            .tag(&format!("{TAG}{}{kind}", std::process::id()))
            .node("a", [PodSpec::new("client"), PodSpec::new("server")])
            .node("b", [PodSpec::new("distant")])
            .service(ServiceSpec::new("near", HTTP_PORT, HTTP_PORT, &["server"]))
            .service(far.port(HTTP_PORT, HTTP_PORT, "http").looked_at())
            .build()?;
        rig.place("client")?.netns.sysctls(&[("net/ipv4/ip_local_port_range", "16384 65535")])?;
        let mut ground = Self::on(rig);
        for pod in ["server", "distant"] {
            ground.serve(pod)?;
        }
        ground.rig.apply("routes", ROUTES)?;
        ground.rig.init_ca()?;
        Ok(ground)
    }

    /// Starts the agents of an observed ground, anew if they run. They tell all that they can of what they do, spans to these
    /// ports of the two nodes' loopback devices; or nothing that can be turned off.
    pub(super) fn restart(&mut self, spans: Option<[u16; 2]>) -> Result<()> {
        self.logs.clear();
        for (index, node) in NODES.into_iter().enumerate() {
            let place = self.rig.node_mut(node)?;
            if let Some(agent) = place.agent.take() {
                agent.stop()?;
            }
            let settings = &mut place.settings;
            match spans {
                Some(ports) => {
                    let log = self.dir.join(format!("access-{node}.log"));
                    settings.set("accessLog", &log.display().to_string());
                    self.logs.push(log);
                    settings.set("tracingEndpoint", &format!("http://127.0.0.1:{}", ports[index]));
                    settings.remove("flowBuffer");
                }
                None => {
                    settings.set("accessLog", "off");
                    settings.remove("tracingEndpoint");
                    settings.set("flowBuffer", "0");
                }
            }
        }
        self.rig.start_agents()
    }

    fn on(rig: Rig) -> Self {
        let dir = rig.footprint().dir();
        let servers = Processes::default();
        Self { servers, rig, dir, logs: Vec::new(), forgotten: AtomicUsize::new(0) }
    }

    /// Empties access logs. One that only grows takes new memory all the time, which the host of a virtual machine may
    /// have to find first: that would be measured, and not the agents.
    pub(super) fn forget_logs(&self) -> Result<()> {
        for log in &self.logs {
            let emptied = || -> io::Result<()> {
                self.forgotten.fetch_add(lines_in(log)?, Ordering::Relaxed);
                File::options().write(true).open(log)?.set_len(0)
            };
            emptied().with_context(|| format!("cannot empty {}", log.display()))?;
        }
        Ok(())
    }

    /// Lines that were in access logs when they were emptied.
    pub(super) fn forgotten(&self) -> usize {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// A pod's address.
    pub(super) fn address(&self, pod: &str) -> Result<IpAddr> {
        Ok(self.rig.place(pod)?.ip(Family::V4))
    }

    /// Below which everything of it runs.
    pub(super) fn cgroup(&self) -> &Path {
        self.rig.footprint().cgroup()
    }

    /// A directory for files.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn serve(&mut self, pod: &str) -> Result<()> {
        let config = self.dir.join(format!("nginx-{pod}.conf"));
        fs::write(&config, web_server(&self.dir.join(pod)))?;
        let mut nginx = self.rig.command_in(pod)?;
        nginx.arg(found("nginx")?).arg("-c").arg(&config).arg("-e").arg("stderr");
        let mut iperf = self.rig.command_in(pod)?;
        iperf.arg(found("iperf3")?).args(["--server", "--port", &BULK_PORT.to_string()]);
        for command in [nginx, iperf] {
            self.servers.start(command)?;
        }
        for port in [HTTP_PORT, BULK_PORT] {
            listening(&self.rig, pod, self.rig.at(pod, port)?)?;
        }
        Ok(())
    }
}

fn lines_in(log: &Path) -> io::Result<usize> {
    Ok(fs::read(log)?.iter().filter(|byte| **byte == b'\n').count())
}

/// A configuration of nginx: one process, no log, and an answer of a kibibyte.
pub(super) fn web_server(dir: &Path) -> String {
    let dir = dir.display();
    let body = "undermesh".repeat(114);
    format!(
        "daemon off;\nmaster_process off;\npid {dir}.pid;\nerror_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         client_body_temp_path {dir}-body;\nproxy_temp_path {dir}-proxy;\n\
         fastcgi_temp_path {dir}-fastcgi;\nuwsgi_temp_path {dir}-uwsgi;\nscgi_temp_path {dir}-scgi;\n\
         server {{ listen {HTTP_PORT} backlog=4096; location / {{ return 200 \"{body}\"; }} }}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_kibibyte() {
        let text = web_server(Path::new("/run/x"));
        let body = text.split('"').nth(1).unwrap();
        assert!((1024..1040).contains(&body.len()), "{}", body.len());
    }
}
