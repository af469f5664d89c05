//! `undermesh flows` shows what happens on a node while it happens, and why.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undermesh_tests::{
    Rig,
    apiserver::{ApiServer, Door, MeshPods, Options},
    locate,
    pod::protocol::Behaviour,
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);

/// The command, following the agent of node `a`; it ends with this.
struct Follower {
    process: Child,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    fn start(rig: &Rig, filters: &[&str]) -> Result<Self> {
        let args = [&["--follow", "-o", "json"], filters].concat();
        let mut process = flows(rig)?.args(args).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().context("no output")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or(Value::String(line));
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(record);
            }
        });
        Ok(Self { process, seen })
    }

    fn wait(&self, wanted: &[(&str, &str)]) -> Result<Value> {
        wait_for(&format!("a flow record with {wanted:?}"), SOON, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let is = |record: &&Value| {
                wanted.iter().all(|(at, value)| record.pointer(at).is_some_and(|at| at == value))
            };
            Ok(seen.iter().find(is).cloned())
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn flows(rig: &Rig) -> Result<Command> {
    let mut command = rig.undermesh_on("a")?;
    command.arg("flows");
    Ok(command)
}

#[test]
fn a_follower_sees_local_proxied_and_denied_connections_with_their_reasons() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    // Flow records do not depend on where the access log goes.
    rig.node_mut("a")?.settings.set("accessLog", "off");
    rig.start()?;
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let all = Follower::start(&rig, &[])?;
    let refusals = Follower::start(&rig, &["--verdict", "denied"])?;

    let local = client.connect(rig.vip("near", 80)?)?;
    local.exchange(b"neighbour")?;
    all.wait(&[("/event", "open"), ("/transport", "local"), ("/source/pod", "client")])?;
    local.close()?;
    let end = all.wait(&[("/event", "close"), ("/transport", "local")])?;
    assert_eq!((&end["bytes_received"], &end["bytes_sent"]), (&9.into(), &9.into()), "{end}");
    assert_eq!(end["destination"]["identity"], "spiffe://cluster.local/ns/shop/sa/near");

    let far = client.connect(rig.vip("far", 80)?)?;
    far.exchange(b"far away")?;
    far.close()?;
    all.wait(&[("/event", "close"), ("/transport", "native"), ("/source/pod", "client")])?;

    rig.apply(
        "no-client",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: no-client, namespace: shop}\n\
         spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [client]}}]}]}\n",
    )?;
    wait_for("the refusal", SOON, || {
        Ok(client.connect(rig.vip("near", 80)?).is_err().then_some(()))
    })?;
    let refused = refusals.wait(&[("/reason", "policy_denied"), ("/source/pod", "client")])?;
    let detail = "denied by AuthorizationPolicy shop/no-client, rule[0] from[0] serviceAccounts";
    assert_eq!(refused["detail"], detail);
    let seen = refusals.seen.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.iter().all(|record| record["event"] == "denied"), "{seen:?}");
    Ok(())
}

#[test]
fn a_closed_pipe_is_a_quiet_end_and_no_agent_is_a_clear_error() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let mut command = flows(&rig)?;
    command.arg("--follow").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn()?;
    drop(process.stdout.take());
    let ended = wait_for("the end of the command", SOON, || {
        client.connect(rig.vip("near", 80)?)?.exchange(b"x")?;
        Ok(process.try_wait()?)
    });
    if ended.is_err() {
        process.kill()?;
    }
    let mut complaint = String::new();
    process.stderr.take().context("no stderr")?.read_to_string(&mut complaint)?;
    ensure!(ended?.success() && complaint.is_empty(), "{complaint}");

    let nobody = flows(&rig)?.args(["--admin", "127.0.0.1:1"]).output()?;
    assert!(!nobody.status.success());
    let complaint = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(complaint.contains("no agent answers at 127.0.0.1:1"), "{complaint}");
    Ok(())
}

#[test]
fn records_of_both_nodes_come_through_the_api_server_with_their_nodes() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let conn = client.connect(rig.vip("far", 80)?)?;
    conn.exchange(b"hello")?;
    conn.close()?;
    let api = ApiServer::start(&rig.footprint().dir().join("api"), Options::default(), None)?;
    let pods = MeshPods::of(&api)?;
    for node in ["a", "b"] {
        pods.add(&api, "agent", &format!("agent-{node}"), node)?;
        let netns = Some(rig.node(node)?.netns.clone());
        // The admin address itself, which guards against names of others.
        pods.open(
            &format!("agent-{node}"),
            15000,
            Door { netns, address: ([127, 0, 0, 1], 15000).into() },
        );
    }
    let kubeconfig = api.kubeconfig("admin", "127.0.0.1", api.token())?;
    let records = wait_for("an end at both nodes", SOON, || {
        let mut command = Command::new(locate("undermesh")?);
        command.args(["flows", "--all-nodes", "-o", "json"]).env("KUBECONFIG", &kubeconfig);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let records: Vec<Value> =
            text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let ends =
            |node: &str| records.iter().any(|it| it["node"] == node && it["event"] == "close");
        Ok((ends("a") && ends("b")).then_some(records))
    })?;
    let of = |node: &str, reporter: &str| {
        records.iter().filter(|it| it["node"] == node && it["reporter"] == reporter).count()
    };
    assert!(of("a", "source") >= 2 && of("b", "destination") >= 2, "{records:?}");
    assert_eq!((of("b", "source"), of("a", "destination")), (0, 0), "{records:?}");
    let times: Vec<&str> = records.iter().filter_map(|it| it["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    Ok(())
}
