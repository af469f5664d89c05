//! `undermesh top` with real traffic: once as JSON and as tables, and live in a pseudo terminal.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use undermesh_tests::{
    PORT, Rig, locate,
    pod::{
        http::{Ask, Load},
        protocol::Behaviour,
    },
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);

/// The standard rig, whose service `far` is looked at, and a client of it that does not cease.
fn busy() -> Result<Rig> {
    let mut rig = Rig::standard().build()?;
    let far = fs::read_to_string(rig.manifests.path("service-far"))?;
    let text = far.replace("name: tcp-80", "name: http-80");
    let looked_at = "  annotations:\n    undermesh.io/l7: \"true\"\nspec:\n";
    rig.manifests.write("service-far", &text.replacen("spec:\n", looked_at, 1))?;
    rig.start()?;
    Ok(rig)
}

fn load(rig: &Rig) -> Result<Load> {
    let ask = Ask {
        to: Some(rig.vip("far", 80)?),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        authority: "far".to_owned(),
        ..Ask::default()
    };
    Ok(Load { ask, askers: 2, pause: 5 })
}

fn top(rig: &Rig, args: &[&str]) -> Result<Command> {
    let mut command = rig.undermesh_on("a")?;
    command.arg("top").args(args);
    Ok(command)
}

fn output(rig: &Rig, args: &[&str]) -> Result<String> {
    let output = top(rig, args)?.output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {complaint}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The command in a terminal of its own, which `script` makes; a shell there says how the terminal was before and
/// is afterwards.
struct Session {
    process: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
    pid: PathBuf,
}

impl Session {
    fn start(rig: &Rig) -> Result<Self> {
        let pid = rig.footprint().dir().join("top.pid");
        let undermesh = locate("undermesh")?;
        let shown = format!(
            "stty rows 30 cols 130; echo before=$(stty -g)=; \
             sh -c 'echo $$ > {}; exec {} top --interval 200ms'; \
             ended=$?; echo after=$(stty -g)= ended=$ended=",
            pid.display(),
            undermesh.display()
        );
        let mut process = rig
            .command_on("a")?
            .args(["script", "--quiet", "--return", "--command", &shown, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let keys = process.stdin.take().context("no input")?;
        let mut output = process.stdout.take().context("no output")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut part) {
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                seen.extend(&part[..read]);
            }
        });
        Ok(Self { process, keys, seen, pid })
    }

    fn text(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Waits until all of `parts` were written.
    fn wait(&self, parts: &[&str]) -> Result<()> {
        let waited = wait_for(&format!("{parts:?} on the screen"), SOON, || {
            let text = self.text();
            Ok(parts.iter().all(|part| text.contains(part)).then_some(()))
        });
        waited.with_context(|| self.text())
    }

    fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.keys.write_all(keys)?;
        Ok(self.keys.flush()?)
    }

    fn signal(&self) -> Result<()> {
        let pid = fs::read_to_string(&self.pid)?.trim().parse()?;
        kill_process(Pid::from_raw(pid).context("no process id")?, Signal::TERM)?;
        Ok(())
    }

    /// Waits for the end, and that the terminal is as it was.
    fn is_given_back(&mut self) -> Result<()> {
        wait_for("the end of the command", SOON, || Ok(self.process.try_wait()?))
            .with_context(|| self.text())?;
        self.wait(&[LEFT, "ended=0="])?;
        let text = self.text();
        let modes = |name: &str| text.split(name).nth(1)?.split('=').next().map(str::to_owned);
        let (before, after) = (modes("before="), modes("after="));
        ensure!(before.is_some() && before == after, "{before:?} became {after:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Leaves the alternate screen.
const LEFT: &str = "\u{1b}[?1049l";

#[test]
fn once_says_rates_success_and_latency_of_real_traffic() -> Result<()> {
    let rig = busy()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let _server = server.listen(any(PORT), Behaviour::Http("server".to_owned()))?;
    let _near = near.listen(any(PORT), Behaviour::Echo)?;
    let idle = client.connect(rig.vip("near", 80)?)?;
    idle.exchange(b"neighbour")?;
    client.begin_load(load(&rig)?)?;

    let found: Value = serde_json::from_str(&output(&rig, &["-o", "json", "--interval", "2s"])?)?;
    let report = client.end_load()?;
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(found["node"], "a");
    let seconds = found["seconds"].as_f64().context("no seconds")?;
    assert!((1.9..10.0).contains(&seconds), "{seconds}");
    let row = |view: &str, wanted: &[(&str, &str)]| -> Result<Value> {
        let rows = found[view].as_array().with_context(|| format!("no {view}"))?;
        let is = |row: &&Value| wanted.iter().all(|(field, value)| row[field] == *value);
        rows.iter().find(is).cloned().with_context(|| format!("no {wanted:?} in {found}"))
    };
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(-1.0);

    let far = row("services", &[("service", "far"), ("side", "client")])?;
    let most = report.asked() as f64 / seconds;
    let rate = number(&far, "requestsPerSecond");
    assert!(rate > 1.0 && rate <= most, "{rate} of at most {most}: {far}");
    assert_eq!(far["success"], 1.0);
    let (p50, p99) = (number(&far, "p50Milliseconds"), number(&far, "p99Milliseconds"));
    assert!(p50 > 0.0 && p99 >= p50, "{far}");
    assert!(number(&far, "sentBytesPerSecond") > 0.0, "{far}");
    let edge = row("edges", &[("source", "shop/client"), ("destination", "shop/server")])?;
    assert_eq!((&edge["protocol"], &edge["security"]), (&"http".into(), &"mutual_tls".into()));
    let pod = row("pods", &[("pod", "shop/client"), ("direction", "out")])?;
    assert_eq!((&pod["state"], number(&pod, "requestsPerSecond")), (&"enrolled".into(), rate));
    let near = row("services", &[("service", "near"), ("side", "client")])?;
    assert_eq!(near["openConnections"], 1, "the kernel's own path counts too");
    idle.close()?;

    let table = output(&rig, &["--once", "--interval", "100ms", "--namespace", "shop"])?;
    for part in ["Node a, rates over", "\nServices\n", "\nEdges\n", "\nPods\n", "shop/client"] {
        assert!(table.contains(part), "no {part:?} in {table}");
    }
    let none = output(&rig, &["--once", "--interval", "100ms", "--namespace", "elsewhere"])?;
    assert!(!none.contains("far"), "{none}");

    let piped = top(&rig, &[])?.output()?;
    let complaint = String::from_utf8_lossy(&piped.stderr).into_owned();
    assert!(!piped.status.success() && complaint.contains("--once"), "{complaint}");
    Ok(())
}

#[test]
fn a_terminal_is_drawn_on_hears_keys_and_is_given_back() -> Result<()> {
    let rig = busy()?;
    let server = rig.pod("server")?;
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT);
    let _server = server.listen(any, Behaviour::Http("server".to_owned()))?;
    let client = rig.pod("client")?;
    client.begin_load(load(&rig)?)?;

    let mut session = Session::start(&rig)?;
    session.wait(&["undermesh top", "REQ/S", "far", "quit"])?;
    session.press(b"2")?;
    // Only what changes is drawn: of a word that was there in part, the rest.
    session.wait(&["FROM"])?;
    session.press(b"p")?;
    session.wait(&["PAUSED"])?;
    session.press(b"q")?;
    session.is_given_back()?;

    // Ctrl-C is a key there; a signal comes from elsewhere.
    let mut session = Session::start(&rig)?;
    session.wait(&["far"])?;
    session.press(b"\x03")?;
    session.is_given_back()?;

    let mut session = Session::start(&rig)?;
    session.wait(&["far"])?;
    session.signal()?;
    session.is_given_back()?;
    client.end_load()?;
    Ok(())
}
