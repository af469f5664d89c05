//! What `undermesh dump`, `undermesh log` and `undermesh bugreport` say of a node with a running agent, and of one where it
//! has ended.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path, process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;
use undermesh_tests::{PodSpec, Rig, ServiceSpec, pod::protocol::Behaviour, wait_for};

const SOON: Duration = Duration::from_secs(20);
/// Something that somebody has written where it does not belong.
const SECRET: &str = "s3cr3t-of-the-upstream";

fn undermesh(rig: &Rig, args: &[&str]) -> Result<Output> {
    Ok(rig.undermesh_on("a")?.args(args).output()?)
}

fn text(rig: &Rig, args: &[&str]) -> Result<String> {
    let output = undermesh(rig, args)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{args:?} ended with {}: {error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The same, whatever the width of columns.
fn words(rig: &Rig, args: &[&str]) -> Result<String> {
    let text = text(rig, args)?;
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(text.lines().map(line).collect::<Vec<_>>().join("\n"))
}

fn json(rig: &Rig, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&text(rig, args)?)?)
}

/// Names and contents of an archive.
fn unpack(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(path)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut contents = String::new();
        entry.read_to_string(&mut contents)?;
        files.insert(name, contents);
    }
    Ok(files)
}

#[test]
fn maps_snapshot_certificates_and_pools_are_those_in_force() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let open = client.connect(rig.vip("far", 80)?)?;
    open.exchange(b"held")?;

    let vip = rig.vip("near", 80)?;
    let near = rig.at("near", 8080)?;
    let services = words(&rig, &["dump", "maps", "SERVICES", "BACKENDS", "PODS", "ORIGINAL_DST"])?;
    ensure!(services.contains(&format!("{vip} 1 backends")), "{services}");
    ensure!(services.contains(&format!("{vip} #0")), "{services}");
    ensure!(services.contains(&format!("{near} local")), "{services}");
    ensure!(services.contains("PODS (2 of 1024)"), "{services}");
    let dialled = rig.vip("far", 80)?.to_string();
    ensure!(services.lines().any(|line| line.ends_with(&dialled)), "{services}");

    let maps = json(&rig, &["dump", "maps", "WORKLOADS", "--limit", "1", "-o", "json"])?;
    assert_eq!(maps[0]["entries"].as_array().map(Vec::len), Some(1), "{maps}");
    ensure!(maps[0]["used"].as_u64() > Some(1), "{maps}");

    let generation = json(&rig, &["dump", "generation"])?;
    let snapshot = json(&rig, &["dump", "snapshot"])?;
    assert_eq!(snapshot["generation"], generation["generation"]);
    ensure!(snapshot["services"].to_string().contains("near"), "{snapshot}");
    ensure!(snapshot.get("certificates").is_none(), "{snapshot}");
    let certificates = json(&rig, &["dump", "certificates"])?;
    assert_eq!(certificates["certificates"].as_array().map(Vec::len), Some(2), "{certificates}");
    ensure!(!certificates.to_string().contains("PRIVATE"), "{certificates}");
    let pools = json(&rig, &["dump", "pools"])?;
    ensure!(pools["pods"].to_string().contains("outboundConnections"), "{pools}");
    let all = json(&rig, &["dump", "all"])?;
    let names = all["maps"].as_array().into_iter().flatten().map(|map| &map["name"]);
    ensure!(names.count() == 13 && all["proxy"].is_object(), "{all}");

    let refused = undermesh(&rig, &["dump", "maps", "NOPE"])?;
    assert_eq!(refused.status.code(), Some(2));
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("SERVICES"), "no names of maps");

    // What a dead agent leaves behind is read from its pins.
    let pins = rig.node("a")?.settings.get("pinDir").context("no pin directory")?.to_owned();
    rig.take_agent("a")?.kill()?;
    let left = words(&rig, &["dump", "maps", "SERVICES", "--pin-dir", &pins])?;
    ensure!(left.contains(&format!("{vip} 1 backends")), "{left}");
    let nobody = undermesh(&rig, &["dump", "generation"])?;
    ensure!(String::from_utf8_lossy(&nobody.stderr).contains("no agent answers"), "silent");
    Ok(())
}

#[test]
fn a_snapshot_has_the_routes_of_requests_in_their_order_with_the_objects_that_say_so() -> Result<()>
{
    let mut rig = Rig::standard()
        .service(ServiceSpec::new("cart", 80, 8080, &["server"]).port(80, 8080, "http"))
        .build()?;
    rig.start()?;
    rig.apply(
        "routes",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\n\
         spec: {host: cart, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, \
         subsets: [{name: v1, labels: {app: server}}, {name: v2, labels: {app: nobody}}]}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\n\
         spec: {hosts: [cart], http: [\
         {name: canary, match: [{headers: {version: {exact: v2}}, uri: {prefix: /items}}], timeout: 200ms, \
         retries: {attempts: 3, perTryTimeout: 50ms, retryOn: '5xx,reset'}, \
         headers: {request: {set: {x-flag: blue}}}, \
         route: [{destination: {host: cart, subset: v1}, weight: 90}, {destination: {host: cart, subset: v2}, weight: 10}]},\
         {match: [{uri: {exact: /old}}], redirect: {redirectCode: 308, authority: new.example}},\
         {route: [{destination: {host: cart, subset: v1}}]}]}\n",
    )?;
    let dump = json(&rig, &["dump", "snapshot"])?;
    let routes = dump["routes"].as_array().context("no routes")?;
    let is_cart = |it: &&Value| it["host"] == "cart.shop.svc.cluster.local";
    let cart = routes.iter().find(is_cart).with_context(|| format!("no cart: {dump}"))?;
    assert_eq!((&cart["port"], &cart["object"]["kind"]), (&80.into(), &"Service".into()));
    let rules = cart["requests"].as_array().context("no rules")?;
    assert_eq!(rules.len(), 3, "{cart}");
    let first = &rules[0];
    assert_eq!((&first["rule"], &first["timeout"]), (&"canary".into(), &"200ms".into()), "{first}");
    let conditions = serde_json::json!([
        {"of": "path", "how": "prefix", "value": "/items"},
        {"of": "header", "name": "version", "how": "exact", "value": "v2"},
    ]);
    assert_eq!(first["conditions"], conditions);
    assert_eq!(
        first["retries"],
        serde_json::json!({"attempts": 3, "perTryTimeout": "50ms", "on": ["5xx", "reset"]})
    );
    let leads = first["destinations"].as_array().context("no destinations")?;
    let shares: Vec<_> = leads.iter().map(|it| it["percent"].as_f64()).collect();
    assert_eq!(shares, [Some(90.0), Some(10.0)]);
    let to = &leads[0]["destination"];
    assert_eq!((&to["subset"], &to["endpoints"]), (&"v1".into(), &1.into()), "{to}");
    assert_eq!(leads[1]["destination"]["endpoints"], 0);
    assert_eq!(to["object"]["kind"], "DestinationRule");
    assert_eq!(rules[1]["answer"], "a redirect with status 308 to new.example");
    assert_eq!(rules[2]["conditions"], serde_json::json!([]));

    let words = words(&rig, &["dump", "snapshot", "-o", "text"])?;
    let mut rest = words.as_str();
    for line in [
        "Service shop/cart, cart.shop.svc.cluster.local:80, speaks http, at ",
        "for clients of ",
        "1. path begins with /items, header version is v2 (VirtualService shop/cart, rule \"canary\")",
        "-> 90% outbound|80|v1|cart.shop.svc.cluster.local, 1 endpoint (DestinationRule shop/cart)",
        "at most 7 connections",
        "-> 10% outbound|80|v2|cart.shop.svc.cluster.local, 0 endpoints (DestinationRule shop/cart)",
        "timeout 200ms",
        "3 retries after 5xx, reset; each attempt takes 50ms at most",
        "request header x-flag is set to blue",
        "2. path is /old (VirtualService shop/cart, rule ",
        "-> a redirect with status 308 to new.example",
        "3. every request (VirtualService shop/cart, rule ",
        "-> 100% outbound|80|v1|cart.shop.svc.cluster.local",
    ] {
        let at = rest.find(line).with_context(|| format!("no {line:?} in order in\n{words}"))?;
        rest = &rest[at + line.len()..];
    }
    Ok(())
}

#[test]
fn the_log_is_changed_module_by_module_for_a_while() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.start()?;
    let configured = text(&rig, &["log"])?;
    ensure!(configured.starts_with("in force    info\nconfigured  info\n"), "{configured}");

    let filter = "info,undermesh::agent::reload=debug";
    let changed = text(&rig, &["log", filter, "--for", "2s"])?;
    ensure!(changed.contains("in force    undermesh::agent::reload=debug,info"), "{changed}");
    ensure!(changed.contains("goes back in"), "{changed}");
    wait_for("the filter of the start", SOON, || {
        Ok(text(&rig, &["log"])?.starts_with("in force    info\n").then_some(()))
    })?;
    // One that is to stay is not taken back by the end of one before it.
    text(&rig, &["log", "warn", "--for", "1s"])?;
    text(&rig, &["log", "debug"])?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(text(&rig, &["log"])?.starts_with("in force    debug\n"), "it went back");
    text(&rig, &["log", "--reset"])?;
    ensure!(text(&rig, &["log"])?.starts_with("in force    info\n"), "it did not go back");

    for (args, told) in [
        (vec!["log", "debgu"], "\"debgu\" is not usable"),
        (vec!["log", "debug", "--for", "x"], "for is a duration like 5m"),
        (vec!["log", "debug", "--for", "48h"], "at most a day"),
    ] {
        let refused = undermesh(&rig, &args)?;
        let error = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success() && error.contains(told), "{args:?}: {error}");
    }
    let recent = text(&rig, &["log", "--recent"])?;
    ensure!(recent.contains("configuration in force"), "{recent}");
    Ok(())
}

#[test]
fn a_bug_report_has_everything_but_secrets_and_says_what_is_missing() -> Result<()> {
    let labelled = PodSpec::new("client").labelled("login-token", SECRET).labelled("color", "blue");
    let near = PodSpec::new("near");
    let near_at_80 = ServiceSpec::new("near", 80, 8080, &["near"]);
    let mut rig = Rig::builder().node("a", [labelled, near]).service(near_at_80).build()?;
    rig.start()?;
    let snapshot = text(&rig, &["dump", "snapshot"])?;
    ensure!(snapshot.contains(SECRET) && snapshot.contains("\"blue\""), "{snapshot}");
    let client = rig.pod("client")?;
    client.connect(rig.vip("near", 80)?).err().context("nobody listens there")?;
    wait_for("the record of it", SOON, || {
        Ok(text(&rig, &["flows", "--last", "1"])?.contains("shop/near").then_some(()))
    })?;

    let node = rig.node("a")?;
    let setting =
        |name: &str| node.settings.get(name).map(str::to_owned).context("no such setting");
    let (pins, cgroup) = (setting("pinDir")?, setting("cgroup")?);
    let path = rig.footprint().dir().join("report.tar.gz");
    let path_text = path.display().to_string();
    let args = ["bugreport", "-o", &path_text, "--pin-dir", &pins, "--cgroup", &cgroup];
    let said = undermesh(&rig, &args)?;
    let errors = String::from_utf8_lossy(&said.stderr);
    ensure!(path.exists(), "{errors}");
    let files = unpack(&path)?;
    for name in [
        "status.json",
        "findings.json",
        "config_dump.json",
        "agent.log",
        "flows.ndjson",
        "metrics.txt",
        "doctor.json",
        "maps/SERVICES.txt",
        "node/kernel.txt",
        "about.json",
    ] {
        let file = files.get(&format!("undermesh-bugreport/{name}"));
        ensure!(file.is_some_and(|text| !text.trim().is_empty()), "{name} is not in it: {errors}");
    }
    for (name, contents) in &files {
        ensure!(!contents.contains(SECRET), "{name} has the secret");
        ensure!(!contents.contains("PRIVATE KEY"), "{name} has a key");
    }
    let dump = &files["undermesh-bugreport/config_dump.json"];
    ensure!(dump.contains("(redacted)") && dump.contains("\"blue\""), "{dump}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);

    // Nothing is overwritten.
    let again = undermesh(&rig, &args)?;
    let error = String::from_utf8_lossy(&again.stderr);
    ensure!(!again.status.success() && error.contains("is it there already?"), "{error}");

    fs::remove_file(&path)?;
    rig.take_agent("a")?.kill()?;
    let without = undermesh(&rig, &args)?;
    assert_eq!(without.status.code(), Some(1));
    let files = unpack(&path)?;
    let about: Value = serde_json::from_str(&files["undermesh-bugreport/about.json"])?;
    ensure!(
        about["missing"].to_string().contains("everything that the agent knows: no agent answers"),
        "{about}"
    );
    ensure!(files.contains_key("undermesh-bugreport/maps/SERVICES.txt"), "no maps");
    Ok(())
}
