//! `fairness`: what a quiet pod loses when a pod of its node asks for ten times its share, with fairness and
//! without; and what fairness costs where nobody contends.
//!
//! What the pods share is one thread of their node's agent, on a processor of its own. The quiet pod asks at a
//! steady pace for what a server on another node answers. The noisy one has ten times as many connections, each of which
//! asks again as soon as it is answered, by the agent itself: so that what it keeps busy is the shared thread. Everything
//! else runs on the other processors, and there the noisy client gives way to all others: what is compared is
//! what the agent does, not what the kernel's scheduler does for load generators.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use undermesh_tests::{PodSpec, Rig, ServiceSpec};

use super::{
    TAG,
    compare::Ratio,
    ground::{HTTP_PORT, web_server},
    load::{found, said},
    process::{Processes, listening},
    report::Findings,
    rounds::Plan,
};
use crate::command;

/// Connections of the quiet pod; the noisy one has ten times as many.
const CONNECTIONS: u32 = 16;
const TIMES: u32 = 10;
/// Milliseconds that a connection of the quiet pod waits before its next request.
const PACE: u32 = 40;
/// What the quiet pod may lose of its rate and of the reciprocal of its p99.
const GOAL: f64 = 0.80;
/// Before the quiet pod is measured, and after it.
const MARGIN: Duration = Duration::from_secs(1);

/// The agent answers for `/noise` itself.
const ROUTES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {exact: /noise}}]
    directResponse: {status: 200, body: {string: noise}}
  - route: [{destination: {host: web}}]
";

/// Two clients on one node, a server on the other, and requests that are looked at.
struct Ground {
    _server: Processes,
    rig: Rig,
    dir: PathBuf,
    /// Processors for all but the shared thread, as taskset has them.
    others: String,
}

/// What a client does.
#[derive(Clone, Copy)]
enum Client {
    Quiet,
    Noisy,
}

/// What a client was given.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Served {
    requests: u64,
    failed: u64,
    /// Microseconds.
    p99: f64,
}

/// One round on one ground: either pod alone, and both.
#[derive(Clone, Copy, Debug)]
struct Round {
    alone: Served,
    beside: Served,
    noisy_alone: Served,
    noisy: Served,
}

pub(super) fn run(plan: Plan) -> Result<Findings> {
    let grounds =
        [("with fairness", Ground::new("f", true)?), ("without", Ground::new("u", false)?)];
    let mut rounds: [Vec<Round>; 2] = Default::default();
    for number in 0..plan.rounds {
        let mut order = [0, 1];
        if number % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let (name, ground) = &grounds[place];
            let round = ground.round(plan.each)?;
            eprintln!("fairness, round {} of {}, {name}: {round:?}", number + 1, plan.rounds);
            rounds[place].push(round);
        }
    }
    let mut findings = Findings::new("fairness: a quiet pod beside a noisy one", None);
    for ((name, _), rounds) in grounds.iter().zip(&rounds) {
        findings.note(format!("{name}: {}", summary(rounds, plan.each)));
    }
    findings.note(format!(
        "goal, with fairness: at least {GOAL} of its rate, p99 at most {:.2} times as long",
        1.0 / GOAL
    ));
    let [with, without] = &rounds;
    let pairs = with.iter().zip(without);
    let cost = pairs.map(|(with, without)| {
        with.noisy_alone.requests as f64 / without.noisy_alone.requests.max(1) as f64
    });
    findings.note(format!(
        "the noisy pod alone, with fairness: {:.3} of its rate without",
        median(cost.collect())
    ));
    Ok(findings)
}

/// Medians of the rounds; ratios are those of the medians.
fn summary(rounds: &[Round], each: Duration) -> String {
    let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let seconds = each.as_secs_f64();
    let [alone, beside] = [median(|one| one.alone.p99), median(|one| one.beside.p99)];
    let [rate_alone, rate_beside] =
        [median(|one| one.alone.requests as f64), median(|one| one.beside.requests as f64)];
    let (rate, p99) = (rate_beside / rate_alone.max(1.0), beside / alone.max(1.0));
    let missed = if rate >= GOAL && 1.0 / p99 >= GOAL { "" } else { "  MISSED" };
    let margin = (2 * MARGIN).as_secs_f64();
    format!(
        "{rate:.3} of its rate, p99 {p99:.2} times as long ({alone:.0} us alone, {beside:.0} us beside); \
         {:.0} requests a second, the noisy pod {:.0} beside it and {:.0} alone{missed}",
        rate_beside / seconds,
        median(|one| one.noisy.requests as f64) / (seconds + margin),
        median(|one| one.noisy_alone.requests as f64) / seconds,
    )
}

impl Ground {
    fn new(kind: &str, fairness: bool) -> Result<Self> {
        let processors = std::thread::available_parallelism()?.get();
        ensure!(processors > 1, "the shared thread needs a processor of its own");
        let others = format!("1-{}", processors - 1);
        let web = ServiceSpec::new("web", 80, HTTP_PORT, &["server"]);
        let mut rig = Rig::builder()
            .tag(&format!("{TAG}{}{kind}", std::process::id()))
            .node("a", [PodSpec::new("quiet"), PodSpec::new("noisy")])
            .node("b", [PodSpec::new("server")])
            .service(web.port(80, HTTP_PORT, "http-80").looked_at())
            .build()?;
        rig.apply("routes", ROUTES)?;
        let dir = rig.footprint().dir();
        for node in ["a", "b"] {
            let settings = &mut rig.node_mut(node)?.settings;
            settings.set("fairness", if fairness { "true" } else { "false" });
            settings.set("workers", "1");
            settings.set("accessLog", "off");
        }
        let config = dir.join("nginx.conf");
        fs::write(&config, web_server(&dir.join("server")))?;
        let mut nginx = rig.command_in("server")?;
        nginx.arg(found("taskset")?).args(["--cpu-list", &others]);
        nginx.arg(found("nginx")?).arg("-c").arg(&config).args(["-e", "stderr"]);
        let mut server = Processes::default();
        server.start(nginx)?;
        rig.start()?;
        for (node, processors) in [("a", "0"), ("b", others.as_str())] {
            let mut taskset = Command::new(found("taskset")?);
            taskset.args(["--all-tasks", "--cpu-list", "--pid", processors]);
            command::stdout(taskset.arg(rig.agent(node)?.pid().to_string()))?;
        }
        listening(&rig, "server", rig.at("server", HTTP_PORT)?)?;
        Ok(Self { _server: server, rig, dir, others })
    }

    fn round(&self, each: Duration) -> Result<Round> {
        let noisy_alone = read(&command::stdout(&mut self.wrk(Client::Noisy, each)?)?)?;
        let alone = read(&command::stdout(&mut self.wrk(Client::Quiet, each)?)?)?;
        let mut noisy = self.wrk(Client::Noisy, each + 2 * MARGIN)?;
        noisy.stdin(Stdio::null()).stdout(Stdio::piped());
        let noisy = noisy.spawn().context("cannot start wrk")?;
        std::thread::sleep(MARGIN);
        let beside = command::stdout(&mut self.wrk(Client::Quiet, each)?);
        let noisy = noisy.wait_with_output()?;
        let (beside, noisy) = (read(&beside?)?, read(&String::from_utf8_lossy(&noisy.stdout))?);
        Ok(Round { alone, beside, noisy_alone, noisy })
    }

    fn wrk(&self, client: Client, time: Duration) -> Result<Command> {
        let (pod, path, connections, pace) = match client {
            Client::Quiet => ("quiet", "", CONNECTIONS, Some(PACE)),
            Client::Noisy => ("noisy", "noise", CONNECTIONS * TIMES, None),
        };
        let script = self.dir.join(format!("{pod}.lua"));
        fs::write(&script, script_of(pace))?;
        let mut wrk = self.rig.command_in(pod)?;
        wrk.arg(found("taskset")?).args(["--cpu-list", &self.others]);
        if matches!(client, Client::Noisy) {
            wrk.arg(found("chrt")?).args(["--idle", "0"]);
        }
        wrk.arg(found("wrk")?).args(["--threads", "1", "--timeout", "30s", "--connections"]);
        wrk.arg(connections.to_string()).arg("--duration").arg(format!("{}s", time.as_secs()));
        let address = self.rig.vip("web", 80)?;
        wrk.arg("--script").arg(&script).arg(format!("http://{address}/{path}"));
        wrk.args(["--header", "Host: web"]);
        Ok(wrk)
    }
}

/// How fast wrk asks, and what it says at its end.
fn script_of(pace: Option<u32>) -> String {
    let pace = pace.map(|pace| format!("function delay() return {pace} end\n")).unwrap_or_default();
    format!(
        "{pace}done = function(summary, latency, requests)\n\
         local e = summary.errors\n\
         io.write(string.format('\\n{{\"requests\":%d,\"failed\":%d,\"p99\":%d}}\\n', summary.requests,\n\
         e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))\n\
         end\n"
    )
}

fn read(report: &str) -> Result<Served> {
    let served: Served = said(report)?;
    ensure!(served.failed == 0, "{} requests failed", served.failed);
    Ok(served)
}

fn median(values: Vec<f64>) -> f64 {
    Ratio::of(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood() {
        let served = read("Running\n\n{\"requests\":10,\"failed\":0,\"p99\":1500}\n").unwrap();
        assert_eq!((served.requests, served.p99), (10, 1500.0));
        assert!(read("{\"requests\":10,\"failed\":1,\"p99\":1}").is_err());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
