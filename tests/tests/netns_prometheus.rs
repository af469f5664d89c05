//! A real Prometheus scrapes a real agent: what it gets is as documented, and every expression of the
//! dashboards and alerts is one that it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undermesh_tests::{
    PORT, Reference, Rig,
    pod::{
        http::{Ask, PLAN, Speaks},
        protocol::Behaviour,
    },
    wait_for,
};

const SOON: Duration = Duration::from_secs(30);
const LISTEN: &str = "127.0.0.1:19090";
/// Label names that a scrape adds.
const OF_A_TARGET: [&str; 3] = ["instance", "job", "le"];

/// Debian's Prometheus: `cargo xtask test` unpacks it into `target/tools`.
fn tool(name: &str) -> Result<PathBuf> {
    let own = env::current_exe()?;
    let unpacked = own.ancestors().map(|dir| dir.join("tools/prometheus/usr/bin").join(name));
    let installed = env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join(name))
        .collect::<Vec<_>>();
    let found = unpacked.chain(installed).find(|path| path.is_file());
    found.with_context(|| format!("no {name}: `cargo xtask test` fetches it"))
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn monitoring() -> PathBuf {
    repository().join("deploy/helm/undermesh/files")
}

/// A Prometheus on node `a`. It ends with this.
struct Prometheus<'a> {
    rig: &'a Rig,
    process: Child,
}

impl<'a> Prometheus<'a> {
    fn start(rig: &'a Rig, dir: &Path) -> Result<Self> {
        let rules = monitoring().join("rules.yaml").canonicalize()?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: undermesh-agent\n  static_configs:\n  \
             - targets: ['127.0.0.1:15020']\n"
        );
        fs::create_dir_all(dir)?;
        let file = dir.join("prometheus.yaml");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.join("prometheus.log"))?;
        let process = rig
            .command_on("a")?
            .arg(tool("prometheus")?)
            .arg("--config.file")
            .arg(&file)
            .arg("--storage.tsdb.path")
            .arg(dir.join("data"))
            .arg(format!("--web.listen-address={LISTEN}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { rig, process })
    }

    /// What the HTTP API answers; an error where it refuses.
    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut curl = self.rig.command_on("a")?;
        curl.args(["curl", "--silent", "--show-error", "--max-time", "10", "--get"]);
        for (name, value) in parameters {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let output = curl.arg(format!("http://{LISTEN}/api/v1/{path}")).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{complaint}");
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(answer["status"] == "success", "{path} {parameters:?}: {answer}");
        Ok(answer["data"].clone())
    }

    fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.api("query", &[("query", expression)])?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Traffic of every kind, so that most metrics have series.
fn traffic(rig: &Rig) -> Result<()> {
    let (client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let any = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let _near = near.listen(any(PORT), Behaviour::Echo)?;
    let _server = server.listen(any(PORT), Behaviour::Http("server".to_owned()))?;
    for _ in 0..3 {
        let local = client.connect(rig.vip("near", 80)?)?;
        local.exchange(b"neighbour")?;
        local.close()?;
    }
    for (speaks, word) in
        [(Speaks::Http1, "200"), (Speaks::Http1, "503"), (Speaks::Grpc, "trailer=0")]
    {
        let ask = Ask {
            speaks,
            to: Some(rig.vip("far", 80)?),
            method: "GET".to_owned(),
            path: "/a.B/C".to_owned(),
            authority: "far".to_owned(),
            headers: BTreeMap::from([(PLAN.to_owned(), word.to_owned())]),
            times: 5,
            ..Ask::default()
        };
        client.ask(ask)?;
    }
    // Nobody listens there.
    let _ = client.connect(rig.at("server", 9)?);
    Ok(())
}

fn started() -> Result<Rig> {
    let mut rig = Rig::standard().build()?;
    let text = fs::read_to_string(rig.manifests.path("service-far"))?;
    let text = text.replace("name: tcp-80", "name: http-80");
    let looked_at = "  annotations:\n    undermesh.io/l7: \"true\"\nspec:\n";
    rig.manifests.write("service-far", &text.replacen("spec:\n", looked_at, 1))?;
    rig.manifests.write(
        "rule",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: far, namespace: shop}\n\
         spec: {host: far, trafficPolicy: {connectionPool: {tcp: {maxConnections: 10}}}}\n",
    )?;
    rig.start()?;
    Ok(rig)
}

#[test]
fn what_is_scraped_has_the_types_and_labels_of_the_reference() -> Result<()> {
    let rig = started()?;
    traffic(&rig)?;
    let reference = Reference::read()?;
    let mut seen = BTreeSet::new();
    for node in ["a", "b"] {
        seen.extend(reference.check(&rig.agent(node)?.metrics()?)?);
    }
    // What a quiet mesh has: a change that takes metrics out of the scrape shows here.
    assert!(seen.len() >= 58, "only {} of {}: {seen:?}", seen.len(), reference.count(""));
    Ok(())
}

#[test]
fn a_real_prometheus_scrapes_an_agent_and_takes_every_expression() -> Result<()> {
    let rig = started()?;
    traffic(&rig)?;
    let dir = rig.footprint().dir().join("prometheus");
    let prometheus = Prometheus::start(&rig, &dir)?;
    let log = || fs::read_to_string(dir.join("prometheus.log")).unwrap_or_default();
    let scraped = wait_for("two scrapes", SOON, || {
        let found = prometheus.query("count_over_time(up{job=\"undermesh-agent\"}[1m]) >= 3")?;
        Ok((!found.is_empty()).then_some(()))
    });
    scraped.with_context(log)?;
    let up = prometheus.query("up")?;
    assert_eq!(up[0]["value"][1], "1", "{}", prometheus.api("targets", &[])?);
    let requests = prometheus.query("sum(istio_requests_total{reporter=\"source\"})")?;
    assert_eq!(requests[0]["value"][1], "15", "{requests:?}");
    let rules = prometheus.api("rules", &[])?;
    let groups = rules["groups"].as_array().context("no groups")?;
    let all: Vec<&Value> =
        groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    assert!(all.len() >= 19, "{rules}");
    // An agent that is well alarms nobody.
    for rule in all {
        assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &"inactive".into()), "{rule}");
    }

    let names: BTreeSet<String> =
        serde_json::from_value(prometheus.api("label/__name__/values", &[])?)?;
    let reference = Reference::read()?;
    let (mut asked, mut answered) = (0, 0);
    for (place, expression) in expressions()? {
        let found = prometheus.query(&expression).with_context(|| place.clone())?;
        let used = metrics_of(&expression);
        assert!(!used.is_empty(), "{place} names no metric: {expression}");
        for name in &used {
            let is_known = reference.labels(name).is_some() || name == "up";
            assert!(is_known, "{place}: there is no metric {name}");
        }
        for label in labels_of(&expression) {
            let mut described = used.iter().filter_map(|name| reference.labels(name)).peekable();
            let known = OF_A_TARGET.contains(&&*label)
                || described.peek().is_none()
                || described.any(|labels| labels.contains(&*label));
            assert!(known, "{place}: no metric of {expression} has the label {label}");
        }
        asked += 1;
        answered += u32::from(!found.is_empty());
        let is_there = used.iter().all(|name| names.contains(name));
        let plain = !place.contains("alert") && !expression.contains("!=");
        assert!(
            !is_there || !plain || !found.is_empty() || expression.contains("5.."),
            "{place}: {expression} shows nothing"
        );
    }
    assert!(asked > 70 && answered > 30, "{answered} of {asked} expressions have an answer");
    Ok(())
}

/// Every expression of dashboards and rules, and where it stands. What Grafana fills in is filled in.
fn expressions() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(monitoring().join("dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
        let variables: Vec<&str> = variables.iter().filter_map(|it| it["name"].as_str()).collect();
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().context("no expression")?;
                let mut text = text.replace("$__rate_interval", "1m");
                for name in &variables {
                    text = text.replace(&format!("${name}"), ".*");
                }
                assert!(!text.contains('$'), "{}: {text}", path.display());
                all.push((format!("{}: {}", path.display(), panel["title"]), text));
            }
        }
    }
    let rules: Value =
        serde_yaml_ng::from_str(&fs::read_to_string(monitoring().join("rules.yaml"))?)?;
    for group in rules["groups"].as_array().context("no groups")? {
        for rule in group["rules"].as_array().into_iter().flatten() {
            let text = rule["expr"].as_str().context("no expression")?;
            all.push((format!("alert {}", rule["alert"]), text.to_owned()));
        }
    }
    Ok(all)
}

/// An expression without what is quoted.
fn bare(expression: &str) -> String {
    expression.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn metrics_of(expression: &str) -> BTreeSet<String> {
    let prefixes = ["undermesh_", "istio_", "process_"];
    let bare = bare(expression);
    let words = bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is = |word: &&str| *word == "up" || prefixes.iter().any(|it| word.starts_with(it));
    words.filter(is).map(str::to_owned).collect()
}

/// Labels that are matched or grouped by.
fn labels_of(expression: &str) -> BTreeSet<String> {
    let bare = bare(expression);
    let mut labels = BTreeSet::new();
    for part in bare.split('{').skip(1) {
        let matchers = part.split('}').next().unwrap_or_default().split(',');
        let names = matchers.filter_map(|it| it.split(['=', '!']).next());
        labels.extend(names.map(|name| name.trim().to_owned()));
    }
    for word in ["by (", "on ("] {
        for part in bare.split(word).skip(1) {
            let names = part.split(')').next().unwrap_or_default().split(',');
            labels.extend(names.map(|name| name.trim().to_owned()));
        }
    }
    labels.retain(|label| !label.is_empty());
    labels
}

#[test]
fn alerts_fire_for_what_is_ill_and_not_for_what_is_well() -> Result<()> {
    let promtool = |args: &[&str], file: &Path| -> Result<()> {
        let output = Command::new(tool("promtool")?).args(args).arg(file).output()?;
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "promtool {args:?}: {text}");
        Ok(())
    };
    promtool(&["check", "rules"], &monitoring().join("rules.yaml"))?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/rules.yaml");
    promtool(&["test", "rules"], &tests)?;
    // Every alert has its tests, and says what to do.
    let rules = fs::read_to_string(monitoring().join("rules.yaml"))?;
    let tests = fs::read_to_string(tests)?;
    let guide = fs::read_to_string(repository().join("docs/guide/observability.md"))?;
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 19);
    for alert in alerts {
        for kind in ["ill", "well"] {
            assert!(tests.contains(&format!("name: {alert} of what is {kind}")), "{alert} {kind}");
        }
        assert!(guide.contains(&format!("| `{alert}` |")), "{alert} is not in the guide");
    }
    Ok(())
}
