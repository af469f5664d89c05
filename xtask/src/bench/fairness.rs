//! `fairness`: what a quiet pod loses when a pod of its node asks for ten times its share, with fairness and
//! without. The quiet pod asks at a steady pace, the noisy one as fast as it can on ten times as many connections.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use undermesh_tests::{Family, PodSpec, Rig, ServiceSpec, wait_for};

use super::{
    TAG,
    ground::{HTTP_PORT, web_server},
    load::found,
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
const WITHIN: Duration = Duration::from_secs(30);

/// Two clients on one node, a server on the other, and requests that are looked at.
struct Ground {
    // Before the rig, which ends it as well, in its own way.
    server: Child,
    rig: Rig,
    dir: PathBuf,
}

/// What a pod was given.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Served {
    requests: u64,
    failed: u64,
    /// Microseconds.
    p99: f64,
}

/// A round: what the quiet pod was given alone, and beside the noisy one, of that.
#[derive(Clone, Copy, Debug)]
struct Round {
    rate: f64,
    p99: f64,
    /// Requests of the noisy pod for one of the quiet.
    noise: f64,
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
        let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let (rate, p99, noise) =
            (median(|one| one.rate), median(|one| one.p99), median(|one| one.noise));
        let met = if rate >= GOAL && 1.0 / p99 >= GOAL { "" } else { "  MISSED" };
        findings.note(format!(
            "{name}: {rate:.3} of its rate, p99 {p99:.3} times as long; the noisy pod is served {noise:.1} times as much{met}"
        ));
    }
    findings.note(format!(
        "goal, with fairness: at least {GOAL} of its rate, p99 at most {:.2}",
        1.0 / GOAL
    ));
    Ok(findings)
}

impl Ground {
    fn new(kind: &str, fairness: bool) -> Result<Self> {
        let web = ServiceSpec::new("web", 80, HTTP_PORT, &["server"]);
        let mut rig = Rig::builder()
            .tag(&format!("{TAG}{}{kind}", std::process::id()))
            .node("a", [PodSpec::new("quiet"), PodSpec::new("noisy")])
            .node("b", [PodSpec::new("server")])
            .service(web.port(80, HTTP_PORT, "http-80").looked_at())
            .build()?;
        let dir = rig.footprint().dir();
        for node in ["a", "b"] {
            let settings = &mut rig.node_mut(node)?.settings;
            settings.set("fairness", if fairness { "true" } else { "false" });
            settings.set("accessLog", "off");
        }
        let config = dir.join("nginx.conf");
        fs::write(&config, web_server(&dir.join("server")))?;
        let mut nginx = rig.command_in("server")?;
        nginx.arg(found("nginx")?).arg("-c").arg(&config).args(["-e", "stderr"]);
        nginx.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = nginx.spawn().context("cannot start a server")?;
        rig.start()?;
        let place = rig.place("server")?;
        let address: SocketAddr = place.at(Family::V4, HTTP_PORT);
        wait_for("the server", WITHIN, || {
            place.netns.run(|| TcpStream::connect(address))??;
            Ok(Some(()))
        })?;
        Ok(Self { server, rig, dir })
    }

    fn round(&self, each: Duration) -> Result<Round> {
        let alone =
            read(&command::stdout(&mut self.wrk("quiet", CONNECTIONS, Some(PACE), each)?)?)?;
        // The noisy one begins earlier and ends later.
        let mut noise =
            self.wrk("noisy", CONNECTIONS * TIMES, None, each + Duration::from_secs(2))?;
        noise.stdin(Stdio::null()).stdout(Stdio::piped());
        let noise = noise.spawn().context("cannot start wrk")?;
        std::thread::sleep(Duration::from_secs(1));
        let beside = command::stdout(&mut self.wrk("quiet", CONNECTIONS, Some(PACE), each)?);
        let noisy = noise.wait_with_output()?;
        let (beside, noisy) = (read(&beside?)?, read(&String::from_utf8_lossy(&noisy.stdout))?);
        Ok(Round {
            rate: beside.requests as f64 / alone.requests.max(1) as f64,
            p99: beside.p99 / alone.p99.max(1.0),
            noise: noisy.requests as f64 / beside.requests.max(1) as f64,
        })
    }

    fn wrk(
        &self,
        pod: &str,
        connections: u32,
        pace: Option<u32>,
        time: Duration,
    ) -> Result<Command> {
        let script = self.dir.join(format!("{pod}.lua"));
        fs::write(&script, script_of(pace))?;
        let mut wrk = self.rig.command_in(pod)?;
        wrk.arg(found("wrk")?).args(["--threads", "1", "--timeout", "30s", "--connections"]);
        wrk.arg(connections.to_string()).arg("--duration").arg(format!("{}s", time.as_secs()));
        wrk.arg("--script").arg(&script).arg(format!("http://{}/", self.rig.vip("web", 80)?));
        Ok(wrk)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.server.kill();
        let _ = self.server.wait();
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
    let line = report.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("wrk has not said how many requests: {report}"))?;
    let served: Served =
        serde_json::from_str(line).with_context(|| format!("unexpected report of wrk: {line}"))?;
    ensure!(served.failed == 0, "{} requests failed", served.failed);
    Ok(served)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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
