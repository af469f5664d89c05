//! HTTP between two pods, with and without the mesh.

use std::{
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use undermesh_tests::{Placement, PodSpec, Rig, wait_for};

use super::{
    Figure,
    load::{Sample, wrk},
};

const PORT: u16 = 8080;
const WITHIN: Duration = Duration::from_secs(20);
/// Samples during which another machine took more than this are measured again.
const MOST_STEAL: f64 = 0.02;
/// How often.
const RETRIES: usize = 3;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) rounds: u32,
    pub(super) seconds: u32,
}

/// What is asked of the server.
struct Work {
    name: &'static str,
    path: &'static str,
    options: &'static [&'static str],
}

const KEEP_ALIVE: Work =
    Work { name: "keep-alive, 32 connections, 1 KiB", path: "/small", options: &["-c32"] };
const NEW: Work = Work {
    name: "a new connection for each request",
    path: "/small",
    options: &["-c8", "-HConnection: close"],
};
const BULK: Work = Work { name: "bulk, 1 connection, 8 MiB", path: "/large", options: &["-c1"] };

/// Two pods of one node: neither enrolled, then both.
pub(super) fn local(plan: Plan) -> Result<Vec<Figure>> {
    compare("local", plan, &["client", "server"], "server", &[KEEP_ALIVE, NEW, BULK], "local")
}

/// A server outside the mesh, and a client that is enrolled or not.
pub(super) fn passthrough(plan: Plan) -> Result<Vec<Figure>> {
    let works = [KEEP_ALIVE, NEW, BULK];
    compare("passthrough", plan, &["client"], "outside", &works, "outside_mesh")
}

fn compare(
    bench: &'static str,
    plan: Plan,
    enrolled: &[&str],
    server: &str,
    works: &[Work],
    verdict: &str,
) -> Result<Vec<Figure>> {
    let pods = ["client", "server", "outside"].map(|name| PodSpec::new(name).listed());
    let mut rig = Rig::builder().node("a", pods).build()?;
    // A line for every connection costs a disk more than the mesh costs a processor.
    rig.node_mut("a")?.settings.set("accessLog", "off");
    rig.start()?;
    let _server = serve(&rig, server)?;
    let mut figures = Vec::new();
    for work in works {
        let mut rates = Vec::new();
        let mut costs = Vec::new();
        let mut bytes = Vec::new();
        for round in 0..plan.rounds {
            let mut pair = [None, None];
            let order = if round % 2 == 0 { [false, true] } else { [true, false] };
            for meshed in order {
                enrol(&rig, enrolled, meshed)?;
                pair[usize::from(meshed)] = Some(measure(&rig, server, plan.seconds, work)?);
            }
            let [Some(without), Some(with)] = pair else { continue };
            rates.push(with.rate / without.rate);
            bytes.push(with.bytes / without.bytes);
            costs.push(with.cpu / without.cpu);
        }
        let mut add = |what: String, ratios: Vec<f64>| {
            figures.push(Figure { bench, what, value: summary(ratios) });
        };
        add(format!("{}: rate, of no mesh's", work.name), rates);
        add(format!("{}: bytes, of no mesh's", work.name), bytes);
        add(format!("{}: processor time a request, of no mesh's", work.name), costs);
    }
    let status = rig.agent("a")?.status()?;
    let counted = status.verdict(verdict);
    anyhow::ensure!(counted > 0, "no connection was counted as {verdict}: {:?}", status.verdicts);
    let proxied = status.verdict("proxied");
    for (what, value) in [
        (format!("connections counted as {verdict}"), counted),
        ("connections that entered user space".to_owned(), proxied),
    ] {
        figures.push(Figure { bench, what, value: value.to_string() });
    }
    Ok(figures)
}

fn measure(rig: &Rig, server: &str, seconds: u32, work: &Work) -> Result<Sample> {
    let url = format!("http://{}{}", rig.at(server, PORT)?, work.path);
    let mut sample = None;
    for _ in 0..RETRIES {
        let mut command = rig.command_in("client")?;
        command.arg("wrk").arg(&url);
        let measured = wrk(command, seconds, work.options)?;
        sample = Some(measured);
        if measured.steal <= MOST_STEAL {
            break;
        }
    }
    sample.context("nothing was measured")
}

/// Enrols these pods, or lets go of them, and waits until it is done.
fn enrol(rig: &Rig, pods: &[&str], enrolled: bool) -> Result<()> {
    let placement = if enrolled { Placement::Enrolled } else { Placement::Listed };
    for pod in pods {
        rig.set_placement(pod, placement)?;
    }
    let agent = rig.agent("a")?;
    agent.wait_status("the pods to be enrolled, or not", WITHIN, |status| {
        pods.iter().all(|pod| status.is_enrolled(pod) == enrolled)
    })?;
    Ok(())
}

/// Median, least and largest.
fn summary(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    match (ratios.first(), ratios.get(ratios.len() / 2), ratios.last()) {
        (Some(least), Some(median), Some(most)) => {
            format!("{median:.3}  ({least:.3} to {most:.3})")
        }
        _ => "nothing was measured".to_owned(),
    }
}

/// A web server inside a pod; ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(rig: &Rig, pod: &str) -> Result<Server> {
    let dir = rig.footprint().dir().join("www");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("small"), [b'x'; 1024])?;
    fs::write(dir.join("large"), vec![b'x'; 8 << 20])?;
    let config = rig.footprint().dir().join("nginx.conf");
    let text = format!(
        "worker_processes 1; daemon off; master_process off; pid {pid}; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; sendfile on;\n\
         server {{ listen {PORT}; root {root}; }} }}\n",
        pid = rig.footprint().dir().join("nginx.pid").display(),
        root = dir.display(),
    );
    fs::write(&config, text)?;
    let mut command = rig.command_in(pod)?;
    command.args(["nginx", "-c"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().context("cannot start nginx")?);
    let at = rig.at(pod, PORT)?;
    let probe = rig.pod("client")?;
    wait_for("the web server", WITHIN, || Ok(probe.connect(at).is_ok().then_some(())))?;
    Ok(server)
}
