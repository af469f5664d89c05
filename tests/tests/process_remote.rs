//! What is asked of agents and controllers through an API server: `flows --all-nodes`, `dashboard --controller` and `log
//! --controller`, over port forwards with real bytes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use undermesh_tests::{
    Controller, Plane,
    apiserver::{Door, MeshPods},
    locate, wait_for,
};

const SOON: Duration = Duration::from_secs(20);
const ADMIN: u16 = 15000;
const DASHBOARD: u16 = 15018;

/// An API server with pods of the mesh.
struct Cluster {
    plane: Plane,
    pods: Arc<MeshPods>,
    kubeconfig: PathBuf,
}

impl Cluster {
    fn new() -> Result<Self> {
        let plane = Plane::new()?;
        let pods = MeshPods::of(&plane.api)?;
        let kubeconfig = plane.api.kubeconfig("admin", "127.0.0.1", plane.api.token())?;
        Ok(Self { plane, pods, kubeconfig })
    }

    fn agent(&self, node: &str, agent: &Agent) -> Result<()> {
        let pod = format!("agent-{node}");
        self.pods.add(&self.plane.api, "agent", &pod, node)?;
        self.pods.open(&pod, ADMIN, Door::here(agent.address));
        Ok(())
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(locate("undermesh")?);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let Output { status, stdout, stderr } = self.command(args)?.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((status.code(), text(&stdout), text(&stderr)))
    }

    fn forwards(&self) -> usize {
        self.plane.api.calls().iter().filter(|call| call.subresource == "portforward").count()
    }
}

/// An agent as far as its flow records go, with the admin pages' keeping of connections.
struct Agent {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    records: Vec<String>,
    /// Before the first of them, in the answer to whoever asks for all.
    lost: u64,
    asked: Vec<String>,
}

fn record(time: &str, pod: &str) -> String {
    json!({"time": format!("2026-01-02T03:04:{time}Z"), "event": "open", "connection": 1,
        "source": {"namespace": "shop", "pod": pod}, "destination": {"address": "10.0.0.2:80"}})
    .to_string()
}

impl Agent {
    fn start(records: &[(&str, &str)], lost: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let records = records.iter().map(|(time, pod)| record(time, pod)).collect();
        let kept = Arc::new(Mutex::new(Kept { records, lost, asked: Vec::new() }));
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { address, kept })
    }

    fn happens(&self, time: &str, pod: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).records.push(record(time, pod));
    }

    fn asked(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

/// Answers as long as the connection is kept.
fn serve(stream: TcpStream, kept: &Mutex<Kept>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    loop {
        let first = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let target = first.split(' ').nth(1)?;
        let body = kept.lock().unwrap_or_else(PoisonError::into_inner).page(target);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        (&stream).write_all((head + &body).as_bytes()).ok()?;
    }
}

impl Kept {
    fn page(&mut self, target: &str) -> String {
        self.asked.push(target.to_owned());
        let parameter = |name: &str| -> Option<usize> {
            let query = target.split_once('?')?.1;
            let value = query.split('&').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
            value?.parse().ok()
        };
        let mut lines = Vec::new();
        let after = parameter("after");
        if after.is_none() && self.lost > 0 {
            lines.push(json!({"event": "lost", "count": self.lost}).to_string());
        }
        let new = &self.records[after.unwrap_or_default()..];
        let last = parameter("last").unwrap_or(usize::MAX);
        lines.extend_from_slice(&new[new.len().saturating_sub(last)..]);
        let cursor = json!({"event": "cursor", "next": self.records.len(), "kernel_lost": 0});
        lines.push(cursor.to_string());
        lines.join("\n") + "\n"
    }
}

/// A command that goes on, and what it says.
struct Running {
    process: Child,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

fn gather(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = gather(process.stdout.take().context("no output")?);
        let err = gather(process.stderr.take().context("no errors")?);
        Ok(Self { process, out, err })
    }

    fn wait(lines: &Mutex<Vec<String>>, part: &str) -> Result<String> {
        wait_for(&format!("a line with {part:?}"), SOON, || {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(lines.iter().find(|line| line.contains(part)).cloned())
        })
    }

    fn says(&self, part: &str) -> Result<String> {
        Self::wait(&self.out, part)
    }

    fn complains(&self, part: &str) -> Result<String> {
        Self::wait(&self.err, part)
    }

    /// Ctrl-C.
    fn interrupt(&mut self) -> Result<Option<i32>> {
        kill_process(Pid::from_child(&self.process), Signal::INT)?;
        Ok(self.process.wait()?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pods(lines: &str) -> Vec<String> {
    let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let shown = records.map(|record| {
        let (node, pod) = (&record["node"], &record["source"]["pod"]);
        format!("{} {}", node.as_str().unwrap_or("?"), pod.as_str().unwrap_or("lost"))
    });
    shown.collect()
}

#[test]
fn flow_records_of_all_nodes_are_one_stream_by_time_and_who_does_not_answer_ends_none() -> Result<()>
{
    let cluster = Cluster::new()?;
    let a = Agent::start(&[("01.000", "one"), ("03.000", "three"), ("05.000", "five")], 0)?;
    let b = Agent::start(&[("02.000", "two"), ("04.000", "four")], 7)?;
    cluster.agent("a", &a)?;
    cluster.agent("node-b", &b)?;
    let (code, out, err) = cluster.run(&["flows", "--all-nodes", "-o", "json", "--port", "80"])?;
    assert_eq!(code, Some(0), "{err}");
    let all = ["a one", "node-b lost", "node-b two", "a three", "node-b four", "a five"];
    assert_eq!(pods(&out), all, "{out}");
    assert!(out.contains(r#"{"node":"node-b","count":7,"event":"lost"}"#), "{out}");
    assert!(err.contains("node node-b: 2 records shown; 7 lost because"), "{err}");
    assert!(!err.contains("node a:"), "nothing of it was lost: {err}");
    assert!(a.asked()[0].ends_with("&port=80"), "{:?}", a.asked());

    // Nothing listens in the pod of c, and d has none.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-c", "c")?;
    cluster
        .plane
        .api
        .put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "d"}}))?;
    let (code, out, err) = cluster.run(&["flows", "--all-nodes", "--last", "2"])?;
    assert_eq!(code, Some(1), "{err}");
    let lines: Vec<Vec<&str>> =
        out.lines().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(
        lines,
        [
            ["2026-01-02T03:04:04.000Z", "node-b", "open", "shop/four"],
            ["2026-01-02T03:04:05.000Z", "a", "open", "shop/five"]
        ]
    );
    for part in [
        "node c: pod agent-c does not answer at port 15000 of its loopback",
        "an error occurred forwarding 15000",
        "node d: no agent runs here",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (code, out, _) = cluster.run(&["flows", "--node", "node-b", "-o", "compact"])?;
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "... 7 records of node node-b were lost: they came faster than they were read\n\
         03:04:02.000 node-b + shop/two -> 10.0.0.2:80\n\
         03:04:04.000 node-b + shop/four -> 10.0.0.2:80\n"
    );
    let (code, _, err) = cluster.run(&["flows", "--node", "nowhere"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("node nowhere: no agent runs here"), "{err}");
    Ok(())
}

#[test]
fn a_follower_of_nodes_goes_on_from_where_it_was_over_connections_that_it_keeps() -> Result<()> {
    let cluster = Cluster::new()?;
    let (a, b) = (Agent::start(&[("01.000", "old")], 0)?, Agent::start(&[], 0)?);
    cluster.agent("a", &a)?;
    // Nothing listens there yet.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-b", "b")?;
    let mut follower =
        Running::start(cluster.command(&["flows", "--all-nodes", "-f", "-o", "json"])?)?;
    follower.says("\"pod\":\"old\"")?;
    follower.complains("node b: pod agent-b does not answer")?;
    a.happens("02.000", "new");
    let line = follower.says("\"pod\":\"new\"")?;
    assert!(line.starts_with("{\"node\":\"a\","), "{line}");
    b.happens("03.000", "late");
    cluster.pods.open("agent-b", ADMIN, Door::here(b.address));
    follower.complains("node b: it answers again")?;
    follower.says("\"pod\":\"late\"")?;
    let rounds = a.asked().len();
    cluster.forwards();
    wait_for("more rounds", SOON, || Ok((a.asked().len() > rounds + 2).then_some(())))?;
    assert_eq!(cluster.forwards(), 0, "a connection for every question");
    assert_eq!(follower.interrupt()?, Some(0));
    let out = follower.out.lock().unwrap_or_else(PoisonError::into_inner).join("\n");
    assert_eq!(pods(&out), ["a old", "a new", "b late"]);
    Ok(())
}

#[test]
fn who_may_not_reach_into_pods_is_told_which_right_it_takes() -> Result<()> {
    let cluster = Cluster::new()?;
    cluster.agent("a", &Agent::start(&[], 0)?)?;
    cluster.pods.add(&cluster.plane.api, "controller", "controller-1", "a")?;
    cluster.pods.deny();
    for args in [
        &["flows", "--all-nodes"][..],
        &["flows", "--all-nodes", "--follow"],
        &["dashboard", "--controller"],
        &["log", "--controller"],
    ] {
        let (code, out, err) = cluster.run(args)?;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        for part in ["resources [pods/portforward], verbs [get, create]", "undermesh-system"] {
            assert!(err.contains(part), "{args:?}: {part}: {err}");
        }
    }
    Ok(())
}

/// One request over its own connection: code, head and body.
fn ask(address: SocketAddr, host: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let code = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((code, body.to_owned()))
}

#[test]
fn a_port_of_this_machine_leads_to_the_controllers_dashboard() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.plane.api;
    let (code, _, err) = cluster.run(&["dashboard", "--controller"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("no controller runs in namespace undermesh-system"), "{err}");
    cluster.pods.put(api, "controller", ("controller-0", "a"), "False")?;
    let (_, _, err) = cluster.run(&["dashboard", "--controller"])?;
    assert!(err.contains("pod controller-0 is not ready"), "{err}");

    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    let there = controller.address("dashboardAddress")?;
    cluster.pods.add(api, "controller", "controller-1", "b")?;
    cluster.pods.open("controller-1", DASHBOARD, Door::here(there));
    let mut running = Running::start(cluster.command(&["dashboard", "--controller"])?)?;
    let url = running.says("/dashboard/")?;
    let here: SocketAddr = url
        .strip_prefix("http://")
        .and_then(|it| it.split('/').next())
        .context("no address")?
        .parse()?;
    assert!(here.ip().is_loopback());
    running.complains("leads to pod controller-1 on node b")?;

    // The same bytes as at the pod, many at once.
    let expected = ask(there, "127.0.0.1", "/dashboard/reference.json")?;
    assert!(expected.0 == 200 && expected.1.len() > 10_000, "{}", expected.1.len());
    thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let host = format!("localhost:{}", here.port());
                scope.spawn(move || ask(here, &host, "/dashboard/reference.json"))
            })
            .collect();
        for one in asked {
            let got = one.join().map_err(|_| anyhow::anyhow!("it has panicked"))??;
            ensure!(got == expected, "other bytes: {} and {}", got.0, got.1.len());
        }
        Ok(())
    })?;
    let (code, status) = ask(here, &here.to_string(), "/status")?;
    assert!(code == 200 && status.contains("\"controller\""), "{status}");
    // A name that somebody has pointed at loopback gets no further than it does there.
    let (code, text) = ask(here, "evil.example", "/status")?;
    assert_eq!((code, text.contains("not served under that name")), (403, true), "{text}");

    let port = here.port().to_string();
    let (code, _, err) = cluster.run(&["dashboard", "--controller", "--port", &port])?;
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("cannot listen at 127.0.0.1:{port}; --port says")), "{err}");
    assert_eq!(running.interrupt()?, Some(0));
    assert!(TcpStream::connect(here).is_err(), "somebody still listens");
    Ok(())
}

#[test]
fn the_controllers_log_level_changes_while_they_run_and_goes_back() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut replicas = Vec::new();
    for name in ["one", "two"] {
        let mut controller = cluster.plane.controller(name, &[("statusInterval", "200ms")])?;
        controller.wait_ready()?;
        cluster.pods.add(&cluster.plane.api, "controller", name, name)?;
        let address = controller.address("dashboardAddress")?;
        cluster.pods.open(name, DASHBOARD, Door::here(address));
        replicas.push(controller);
    }
    let (code, out, err) = cluster.run(&["log", "--controller"])?;
    assert_eq!(code, Some(0), "{err}");
    let shown = |pod: &str, filter: &str| {
        format!("{pod} on node {pod}\nin force    {filter}\nconfigured  info\n")
    };
    assert_eq!(out, shown("one", "info") + &shown("two", "info"));
    // Its agent has no address, and whoever looks at the dashboard has it asked.
    cluster.pods.add(&cluster.plane.api, "agent", "agent-a", "a")?;
    let looks = |controller: &Controller| {
        let (code, _) = controller.page("dashboardAddress", "/edges")?;
        ensure!(code == 200, "the dashboard answers {code}");
        Ok(controller.log().contains("no counters"))
    };
    let filter = "warn,undermesh::controller::dashboard::agents=debug";
    let (code, out, err) = cluster.run(&["log", "--controller", filter, "--for", "5m"])?;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.matches("dashboard::agents=debug").count(), 2, "{out}");
    assert_eq!(out.matches("goes back in 4m").count(), 2, "{out}");
    for controller in &replicas {
        wait_for("a line of that module", SOON, || Ok(looks(controller)?.then_some(())))?;
    }
    let (code, out, _) = cluster.run(&["log", "--controller", "--recent"])?;
    assert!(code == Some(0) && out.contains("starting the controller"), "{out}");
    let (code, _, err) = cluster.run(&["log", "--controller", "nonsense=louder"])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("one on node one") && err.contains("answered 400"), "{err}");
    let (code, out, _) = cluster.run(&["log", "--controller", "--reset"])?;
    assert_eq!((code, out), (Some(0), shown("one", "info") + &shown("two", "info")));

    // It is asked directly as well; other sites are not let in.
    let there = replicas[0].address("dashboardAddress")?.to_string();
    let (code, out, err) = cluster.run(&["log", "debug", "--for", "1s", "--admin", &there])?;
    assert!(code == Some(0) && out.contains("in force    debug"), "{out}{err}");
    wait_for("the filter to go back", SOON, || {
        let (_, out, _) = cluster.run(&["log", "--admin", &there])?;
        Ok(out.contains("in force    info").then_some(()))
    })?;
    Ok(())
}

#[test]
fn whoever_has_the_dashboard_at_another_address_cannot_change_the_log() -> Result<()> {
    let cluster = Cluster::new()?;
    let mut controller = cluster.plane.controller("one", &[("dashboardAddress", "[::]:0")])?;
    controller.wait_ready()?;
    let there = controller.address("dashboardAddress")?;
    let there = SocketAddr::from(([127, 0, 0, 1], there.port()));
    let (code, _, err) = cluster.run(&["log", "debug", "--admin", &there.to_string()])?;
    assert_eq!(code, Some(1));
    assert!(err.contains("404: the log is served only where dashboardAddress is"), "{err}");
    Ok(())
}

#[test]
fn one_archive_has_what_all_agents_and_controllers_know_and_says_what_is_missing() -> Result<()> {
    let cluster = Cluster::new()?;
    let api = &cluster.plane.api;
    let a = Agent::start(&[("01.000", "one")], 0)?;
    a.kept.lock().unwrap_or_else(PoisonError::into_inner).records.push(
        json!({"event": "request", "path": "/a?token=sesame", "source": {"pod": "two"}})
            .to_string(),
    );
    cluster.agent("a", &a)?;
    // Nothing listens in the pod of b, and c has none.
    cluster.pods.add(api, "agent", "agent-b", "b")?;
    api.put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "c"}}))?;
    let mut controller = cluster.plane.controller("one", &[])?;
    controller.wait_ready()?;
    cluster.pods.add(api, "controller", "controller-1", "a")?;
    let there = controller.address("dashboardAddress")?;
    cluster.pods.open("controller-1", DASHBOARD, Door::here(there));
    let path = cluster.kubeconfig.with_file_name("report.tar.gz");
    let path_text = path.display().to_string();
    let (code, out, err) = cluster.run(&["bugreport", "--all-nodes", "-o", &path_text])?;
    assert_eq!(code, Some(1), "{out}{err}");
    for part in [
        "nodes/b/status.json: and all else of port 15000: pod agent-b does not answer",
        "nodes/c: no agent runs there",
        "nodes/a/metrics.txt: and all else of port 15020",
        "controllers/controller-1/metrics.txt: and all else of port 15014",
    ] {
        assert!(err.contains(&format!("missing: {part}")), "{part}: {err}");
    }
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(&path)?));
    let mut files = std::collections::BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name.trim_start_matches("undermesh-bugreport/").to_owned(), text);
    }
    for name in [
        "about.json",
        "pods.json",
        "nodes/a/status.json",
        "nodes/a/maps/SERVICES.json",
        "controllers/controller-1/status.json",
        "controllers/controller-1/controller.log",
    ] {
        assert!(files.get(name).is_some_and(|text| !text.is_empty()), "{name}: {:?}", files.keys());
    }
    assert!(
        files["nodes/a/flows.ndjson"].contains("token=(redacted)"),
        "{}",
        files["nodes/a/flows.ndjson"]
    );
    assert!(!files.values().any(|text| text.contains("sesame")));
    assert!(files["controllers/controller-1/controller.log"].contains("starting the controller"));
    let about: Value = serde_json::from_str(&files["about.json"])?;
    assert_eq!(about["missing"].as_array().map(Vec::len), Some(5), "{about}");
    let (code, _, _) = cluster.run(&["bugreport", "--all-nodes", "--no-flows", "-o", "-"])?;
    assert_eq!(code, Some(1));
    assert!(!a.asked().iter().skip_while(|it| *it != "/flows").skip(1).any(|it| it == "/flows"));
    Ok(())
}
