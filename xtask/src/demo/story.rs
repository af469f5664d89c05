//! What the demo does, in the order in which it is shown. Every claim is checked before it is
//! printed: a demo that would have to lie fails instead.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::{Capture, Placement, PodSpec, Rig, ServiceSpec, undermesh, wait_for};

use super::{
    TAG, output, requests,
    show::{Steps, quoted, say, typed},
};

pub(super) const MARKER: &str = "the-secret-recipe";
/// What version 2 serves.
pub(super) const SECOND: &str = "the-secret-recipe-second-edition";
const PORT: u16 = 8080;
/// Pods that join the mesh.
const JOINING: [&str; 3] = ["client", "server", "server-v2"];

/// Builds the two nodes and goes through the steps.
pub(super) fn tell(keep: bool) -> Result<()> {
    let mut steps = Steps::default();
    let mut demo = Demo::set_up(&mut steps)?;
    demo.in_clear(&mut steps)?;
    demo.enrol(&mut steps)?;
    demo.encrypted(&mut steps)?;
    demo.identities(&mut steps)?;
    demo.denied(&mut steps)?;
    requests::routed(&demo, &mut steps)?;
    requests::judged(&demo, &mut steps)?;
    demo.dead_agent(&mut steps)?;
    demo.metrics(&mut steps)?;
    demo.status(&mut steps)?;
    demo.end(&mut steps, keep)
}

pub(super) struct Demo {
    pub(super) rig: Rig,
    capture: Capture,
    servers: [Server; 2],
}

/// A web server inside a pod; it ends with the demo, or with the pod's cgroup.
struct Server(Child);

impl Demo {
    fn set_up(steps: &mut Steps) -> Result<Self> {
        steps.next("Two nodes, an agent on each, five pods. None of the pods is in the mesh.");
        let server = PodSpec::new("server").labelled("version", "v1").listed();
        let second = PodSpec::new("server-v2").labelled("version", "v2").listed();
        let mut rig = Rig::builder()
            .tag(TAG)
            .node("a", [PodSpec::new("client").listed(), PodSpec::new("near").listed()])
            .node("b", [server, second, PodSpec::new("stranger").listed()])
            .service(
                ServiceSpec::new("recipes", 80, PORT, &["server", "server-v2"])
                    .app_protocol(80, "http"),
            )
            .build()?;
        // Node b demands mutual TLS of its enrolled pods.
        rig.node_mut("b")?.settings.set("mtls", "STRICT");
        rig.start()?;
        let servers =
            [start_server(&rig, "server", MARKER)?, start_server(&rig, "server-v2", SECOND)?];
        let capture = rig.capture()?;
        say(
            "node a: client, near      node b: server, server-v2 (python3 -m http.server), stranger",
        );
        say("Nodes and pods are network namespaces; `ip netns` lists them as um-demo-*.");
        Ok(Self { rig, capture, servers })
    }

    fn in_clear(&self, steps: &mut Steps) -> Result<()> {
        steps.next("Before: a request as it is without a mesh");
        let body = self.curl("client", &self.server_url()?)?;
        ensure!(body.contains(MARKER), "the server answered {body:?}");
        self.capture.wait_for(MARKER.as_bytes())?;
        say(&format!("The answer {MARKER:?} was captured in clear on the link between the nodes."));
        Ok(())
    }

    fn enrol(&self, steps: &mut Steps) -> Result<()> {
        steps.next("Client and servers join by a label, while they run");
        typed(
            "manifests",
            "kubectl-style label: istio.io/dataplane-mode=ambient on client, server and server-v2",
        );
        let started = Instant::now();
        for pod in JOINING {
            self.rig.set_placement(pod, Placement::Enrolled)?;
        }
        for pod in JOINING {
            self.rig.agent(&self.rig.place(pod)?.node)?.wait_enrolled(pod)?;
        }
        say(&format!(
            "Intercepted after {} ms; no process was restarted.",
            started.elapsed().as_millis()
        ));
        Ok(())
    }

    fn encrypted(&mut self, steps: &mut Steps) -> Result<()> {
        steps.next("After: the same request, and one to the service's virtual address");
        self.capture = self.rig.capture()?;
        for url in [self.server_url()?, format!("http://{}/recipe", self.rig.vip("recipes", 80)?)] {
            let body = self.curl("client", &url)?;
            ensure!(body.contains(MARKER), "the server answered {body:?}");
        }
        wait_for("tunnelled bytes in the capture", Duration::from_secs(5), || {
            Ok((self.capture.payload_bytes(PORT)? > 0).then_some(()))
        })?;
        ensure!(!self.capture.contains(MARKER.as_bytes())?, "the answer crossed the link in clear");
        say(&format!(
            "Captured on the link: {} bytes of mutual TLS to the server's own port {PORT}, and \
             {MARKER:?} not once.",
            self.capture.payload_bytes(PORT)?,
        ));
        Ok(())
    }

    fn identities(&self, steps: &mut Steps) -> Result<()> {
        steps.next("Who talked to whom: the access log of the server's node");
        let log = self.rig.agent("b")?.access_log();
        let line = log.wait(&[("event", "close"), ("reporter", "destination")])?;
        for field in ["source.identity", "destination.identity", "security", "bytes_sent", "reason"]
        {
            say(&format!("{field:22} {}", line.get(field)));
        }
        Ok(())
    }

    fn denied(&self, steps: &mut Steps) -> Result<()> {
        steps.next("Denied: a pod outside the mesh calls the server, which is STRICT");
        let (succeeded, complaint) = self.try_curl("stranger", &self.server_url()?)?;
        ensure!(!succeeded, "the stranger was served: {complaint}");
        quoted(&complaint, 2);
        let log = self.rig.agent("b")?.access_log();
        let line = log.wait(&[("event", "denied"), ("reason", "strict_plaintext")])?;
        say(&format!("Refused in the kernel of node b; its log says {:?}.", line.get("reason")));
        Ok(())
    }

    fn dead_agent(&mut self, steps: &mut Steps) -> Result<()> {
        steps.next("The server's agent is killed: no request falls back to plaintext");
        self.rig.take_agent("b")?.kill()?;
        let (succeeded, complaint) = self.try_curl("client", &self.server_url()?)?;
        ensure!(!succeeded, "a request got through without the agent: {complaint}");
        quoted(&complaint, 2);
        let started = Instant::now();
        self.rig.start_agents()?;
        let body = self.curl("client", &self.server_url()?)?;
        ensure!(body.contains(MARKER), "the server answered {body:?}");
        say(&format!(
            "Started again: it took over programs and maps, and served after {} ms. The pods \
             were not touched.",
            started.elapsed().as_millis()
        ));
        ensure!(!self.capture.contains(MARKER.as_bytes())?, "the answer crossed the link in clear");
        Ok(())
    }

    fn metrics(&self, steps: &mut Steps) -> Result<()> {
        steps.next("Istio's standard metrics, from port 15020 of the client's node");
        let metrics = self.rig.agent("a")?.metrics()?;
        let wanted = ["istio_tcp_connections_opened_total{", "istio_tcp_sent_bytes_total{"];
        for name in wanted {
            let line = metrics.lines().find(|line| line.starts_with(name));
            let line = line.with_context(|| format!("{name} is not among the metrics"))?;
            say(&shortened(line));
        }
        Ok(())
    }

    fn status(&self, steps: &mut Steps) -> Result<()> {
        steps.next("What the agent says of itself");
        typed("node b", "undermesh status");
        let mut command = self.rig.command_on("b")?;
        command.arg(std::env::current_exe()?.with_file_name("undermesh")).arg("status");
        let (succeeded, text) = output(&mut command)?;
        ensure!(succeeded, "undermesh status failed: {text}");
        quoted(&text, 60);
        Ok(())
    }

    fn end(self, steps: &mut Steps, keep: bool) -> Result<()> {
        if keep {
            steps.next("Everything stays up. Explore it:");
            self.print_commands()?;
            let Self { rig, servers, .. } = self;
            servers.into_iter().for_each(Server::keep);
            rig.keep();
            return Ok(());
        }
        steps.next("Everything is taken down");
        let Self { rig, servers, .. } = self;
        let footprint = rig.footprint().clone();
        drop(servers);
        let pins = footprint.bpffs().join("b");
        let cleaned = undermesh(["cleanup", "--pin-dir", &pins.display().to_string(), "--force"])?;
        quoted(&cleaned, 3);
        drop(rig);
        let left = footprint.leftovers();
        ensure!(left.is_empty(), "the demo left something behind: {left:?}");
        say("No namespace, cgroup, pin, mount or process is left.");
        Ok(())
    }

    fn print_commands(&self) -> Result<()> {
        let dir = self.rig.footprint().dir();
        let bin = std::env::current_exe()?.with_file_name("undermesh");
        let pod_tool = std::env::current_exe()?.with_file_name("undermesh-pod");
        let client = self.rig.place("client")?;
        let agent = |node: &str| format!("ip netns exec um-demo-{node}");
        for line in [
            format!("{} {} status", agent("a"), bin.display()),
            format!("{} curl -s 127.0.0.1:15000/config_dump", agent("b")),
            format!("{} curl -s 127.0.0.1:15020/metrics", agent("b")),
            format!("tail -f {}", dir.join("b/access.log").display()),
            format!(
                "{} --netns {} --cgroup {} exec -- curl -s {}",
                pod_tool.display(),
                client.netns.path().display(),
                client.cgroup.display(),
                self.server_url()?
            ),
            format!(
                "ls {}   # edit these files, and see what happens",
                dir.join("manifests").display()
            ),
            "cargo xtask demo --down".to_owned(),
        ] {
            println!("   {line}");
        }
        Ok(())
    }

    pub(super) fn server_url(&self) -> Result<String> {
        Ok(format!("{}/recipe", self.server()?))
    }

    pub(super) fn server(&self) -> Result<String> {
        Ok(format!("http://{}", self.rig.at("server", PORT)?))
    }

    fn curl(&self, pod: &str, url: &str) -> Result<String> {
        let (succeeded, text) = self.try_curl(pod, url)?;
        ensure!(succeeded, "curl {url} from {pod} failed: {text}");
        quoted(&text, 3);
        Ok(text)
    }

    fn try_curl(&self, pod: &str, url: &str) -> Result<(bool, String)> {
        self.try_curl_with(pod, &[], url)
    }

    /// The same with more options.
    pub(super) fn try_curl_with(
        &self,
        pod: &str,
        options: &[&str],
        url: &str,
    ) -> Result<(bool, String)> {
        let shown: Vec<String> = options.iter().map(|option| as_typed(option)).collect();
        let words = ["curl"].into_iter().chain(shown.iter().map(String::as_str)).chain([url]);
        typed(pod, &words.collect::<Vec<_>>().join(" "));
        self.ask(pod, options, url)
    }

    /// The same without a word.
    pub(super) fn ask(&self, pod: &str, options: &[&str], url: &str) -> Result<(bool, String)> {
        let mut command = self.rig.command_in(pod)?;
        command.args(["curl", "--silent", "--show-error", "--max-time", "10"]);
        output(command.args(options).arg(url))
    }
}

/// A word as a shell would want it.
fn as_typed(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

/// Serves `text` as `/recipe`.
fn start_server(rig: &Rig, pod: &str, text: &str) -> Result<Server> {
    let root = rig.footprint().dir().join("www").join(pod);
    fs::create_dir_all(&root)?;
    fs::write(root.join("recipe"), format!("{text}\n"))?;
    let mut command = rig.command_in(pod)?;
    command.args(["python3", "-m", "http.server", "--bind", "0.0.0.0", "--directory"]);
    command.arg(&root).arg(PORT.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let server = Server(command.spawn().context("cannot start the web server")?);
    let at = rig.at(pod, PORT)?;
    let pod = rig.pod(pod)?;
    wait_for("the web server", Duration::from_secs(15), || Ok(pod.connect(at).ok().map(drop)))?;
    Ok(server)
}

impl Server {
    /// Leaves it running; the demo's `--down` ends it with its cgroup.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A metric with only the labels that the eye looks for.
fn shortened(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{') else { return line.to_owned() };
    let Some((labels, value)) = rest.rsplit_once('}') else { return line.to_owned() };
    let kept: Vec<&str> = labels
        .split(',')
        .filter(|label| {
            ["source_principal", "destination_principal", "connection_security_policy"]
                .iter()
                .any(|wanted| label.starts_with(wanted))
        })
        .collect();
    format!("{name}{{{},...}}{value}", kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_metric_is_shortened_to_the_labels_that_matter() {
        let line = "m_total{a=\"1\",source_principal=\"x\",b=\"2\"} 7";
        assert_eq!(shortened(line), "m_total{source_principal=\"x\",...} 7");
    }
}
