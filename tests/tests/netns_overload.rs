//! An agent that runs out of something: what is refused, in which order, and what does not notice.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use undermesh_tests::{
    Agent, Conn, PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::{
        http::{Ask, Reply},
        protocol::Behaviour,
    },
    wait_for,
};

/// Where the server echoes.
const ECHO: u16 = 8081;
/// Connections that are held open, so that single ones weigh little.
const HELD: usize = 150;
const WITHIN: Duration = Duration::from_secs(60);

/// `client`, `cheap` (of low priority) and `dear` (of high priority) ask the server of another node; their
/// agent is the one that runs out.
struct Short {
    rig: Rig,
    _server: Pod,
}

impl Short {
    fn open(setting: Option<(&str, &str)>) -> Result<Self> {
        let mut rig = Rig::builder()
            .node("a", ["client", "cheap", "dear", "near"].map(PodSpec::new))
            .node("b", [PodSpec::new("server")])
            .service(
                ServiceSpec::new("web", 80, PORT, &["server"])
                    .port(80, PORT, "http-80")
                    .looked_at(),
            )
            .service(ServiceSpec::new("echo", 90, ECHO, &["server"]))
            .build()?;
        for (pod, priority) in [("cheap", "low"), ("dear", "high")] {
            let name = format!("pod-{pod}");
            let text = fs::read_to_string(rig.manifests.path(&name))?;
            let labels = format!("  labels:\n    undermesh.io/priority: {priority}\n");
            rig.manifests.write(&name, &text.replacen("  labels:\n", &labels, 1))?;
        }
        if let Some((key, value)) = setting {
            rig.node_mut("a")?.settings.set(key, value);
        }
        rig.start()?;
        let server = rig.pod("server")?;
        server.listen_many("[::]:8080".parse()?, 1, Behaviour::Http("server".to_owned()))?;
        server.listen_many("[::]:8081".parse()?, 1, Behaviour::Echo)?;
        Ok(Self { rig, _server: server })
    }

    fn agent(&self) -> Result<&Agent> {
        self.rig.agent("a")
    }

    fn web(&self) -> Result<SocketAddr> {
        self.rig.vip("web", 80)
    }

    fn echo(&self) -> Result<SocketAddr> {
        self.rig.vip("echo", 90)
    }

    /// The answer to a request on a connection of its own.
    fn ask(&self, pod: &str) -> Result<Reply> {
        let ask = Ask {
            to: Some(self.web()?),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            authority: "web".to_owned(),
            times: 1,
            ..Ask::default()
        };
        self.rig.pod(pod)?.ask(ask)?.into_iter().next().context("no answer")
    }

    /// Whether bytes get through on a new connection.
    fn gets_through(&self, pod: &str) -> Result<bool> {
        let pod = self.rig.pod(pod)?;
        Ok(pod.connect(self.echo()?).is_ok_and(|conn| conn.exchange(b"hello").is_ok()))
    }

    /// Leaves the agent with so few descriptors that this step is what it has to take.
    fn press(&self, pressure: f64, step: &str) -> Result<()> {
        let agent = self.agent()?;
        wait_for(&format!("step {step}"), WITHIN, || {
            let open = agent.open_files()?;
            limit(agent, (open as f64 / pressure).ceil() as u64)?;
            Ok((current(agent)? == step).then_some(()))
        })
    }

    fn relieve(&self) -> Result<()> {
        let agent = self.agent()?;
        limit(agent, 65_536)?;
        wait_for("step none", WITHIN, || Ok((current(agent)? == "none").then_some(())))
    }
}

/// Lets the agent have so many descriptors, and no more than it may have at all.
fn limit(agent: &Agent, descriptors: u64) -> Result<()> {
    let pid = Pid::from_raw(agent.pid().cast_signed()).context("no process id")?;
    let most = hard_limit(agent)?;
    let limit = Rlimit { current: Some(descriptors.min(most)), maximum: Some(most) };
    prlimit(Some(pid), Resource::Nofile, limit).context("the limit cannot be changed")?;
    Ok(())
}

/// What nobody can raise without a privilege: soft and hard limit are the line's last numbers.
fn hard_limit(agent: &Agent) -> Result<u64> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line.and_then(|line| line.split_whitespace().nth(4)).context("no limit is said")?;
    Ok(hard.parse().unwrap_or(u64::MAX))
}

/// The step, as the status page has it.
fn current(agent: &Agent) -> Result<String> {
    let status: serde_json::Value = serde_json::from_str(&agent.admin("/status")?)?;
    let step = status["agent"]["overload"]["step"].as_str();
    step.map(str::to_owned).context("no step in the status")
}

fn lives(conn: &Conn<'_>) -> Result<()> {
    let echoed =
        conn.exchange(b"still there").context("a connection that was let in was cut off")?;
    ensure!(echoed == b"still there");
    Ok(())
}

/// A request on a connection that is open already.
fn still_answers(conn: &Conn<'_>) -> Result<()> {
    conn.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1).context("a connection that was let in was cut off")?);
    }
    let head = String::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    conn.receive(length.context("no length")?.parse()?)?;
    Ok(())
}

fn is_shed(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("x-envoy-overloaded") == Some("true")
}

#[test]
fn without_descriptors_load_is_shed_in_the_documented_order_and_taken_again() -> Result<()> {
    let short = Short::open(None)?;
    let agent = short.agent()?;
    let client = short.rig.pod("client")?;
    let held: Vec<Conn<'_>> =
        (0..HELD).map(|_| Ok(client.connect(short.echo()?)?)).collect::<Result<_>>()?;
    held.iter().try_for_each(lives)?;
    let asking = client.connect(short.web()?)?;
    still_answers(&asking)?;

    short.press(0.85, "trim")?;
    ensure!(short.ask("cheap")?.status == 200 && short.ask("client")?.status == 200);
    ensure!(short.gets_through("client")?);

    short.press(0.92, "requests")?;
    let reply = short.ask("cheap")?;
    ensure!(is_shed(&reply), "{reply:?}");
    ensure!(short.ask("client")?.status == 200 && short.ask("dear")?.status == 200);
    ensure!(short.gets_through("cheap")?, "bytes are no request");

    short.press(0.965, "routed")?;
    let reply = short.ask("client")?;
    ensure!(reply.status == 0 && reply.error.is_some(), "{reply:?}");
    ensure!(short.ask("dear")?.status == 200, "high priority");
    ensure!(short.gets_through("client")?);
    still_answers(&asking)?;

    short.press(0.985, "connections")?;
    ensure!(!short.gets_through("client")? && !short.gets_through("dear")?);
    still_answers(&asking)?;
    held.iter().try_for_each(lives)?;
    let (code, text) = agent.readiness()?;
    ensure!(code == 200, "{text}");
    ensure!(agent.metrics()?.contains("\nundermesh_overload_step 4\n"));
    for what in ["request", "routed", "connection"] {
        ensure!(agent.metric("undermesh_overload_shed_total", what)? > 0, "{what}");
    }

    short.relieve()?;
    ensure!(short.ask("cheap")?.status == 200 && short.ask("client")?.status == 200);
    ensure!(short.gets_through("client")?);
    held.iter().try_for_each(lives)?;
    still_answers(&asking)?;
    let log = agent.log();
    let order: Vec<usize> = ["step=trim", "step=requests", "step=routed", "step=connections"]
        .iter()
        .map(|step| log.find(step).with_context(|| format!("{step} is not in the log")))
        .collect::<Result<_>>()?;
    ensure!(order.is_sorted(), "{order:?}");
    Ok(())
}

#[test]
fn without_memory_what_needs_no_proxy_does_not_notice() -> Result<()> {
    let short = Short::open(Some(("overloadMemory", "1000")))?;
    let agent = short.agent()?;
    wait_for("step connections", WITHIN, || Ok((current(agent)? == "connections").then_some(())))?;
    ensure!(!short.gets_through("client")?);
    agent.access_log().wait(&[("reason", "overloaded"), ("response_flags", "OM")])?;
    let near = short.rig.pod("near")?;
    near.listen_many("[::]:8081".parse()?, 1, Behaviour::Echo)?;
    let client = short.rig.pod("client")?;
    lives(&client.connect(short.rig.at("near", ECHO)?)?)?;
    let (code, text) = agent.readiness()?;
    ensure!(code == 200, "{text}");
    Ok(())
}
