//! oha: HTTP/1.1 at a steady rate, whatever the answers do. A request's latency counts from when it
//! was due, not from when a connection was free for it: what is called to correct for coordinated
//! omission.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Done, Latency, OPEN_RATE};
use crate::{
    bench::mesh::{
        ground::{Ground, HEADER},
        servers::HTTP,
    },
    command,
};

const CONNECTIONS: &str = "32";

/// Runs it.
pub(super) fn run(oha: &Path, ground: &Ground, time: Duration) -> Result<Done> {
    let (name, value) = HEADER;
    let mut command = ground.client()?;
    command.arg(oha).args(["--no-tui", "--output-format", "json", "--latency-correction"]);
    command.args(["-c", CONNECTIONS, "-q", &OPEN_RATE.to_string(), "-z"]);
    command.arg(format!("{}s", time.as_secs())).arg("--wait-ongoing-requests-after-deadline");
    command.args(["-H", &format!("{name}: {value}")]);
    command.arg(format!("http://{}/", ground.address(HTTP)?));
    read(&command::stdout(&mut command)?)
}

fn read(report: &str) -> Result<Done> {
    let report: Value = serde_json::from_str(report).context("unexpected report of oha")?;
    let sum = |field: &str, wanted: fn(&str) -> bool| -> u64 {
        let counts = report[field].as_object().into_iter().flatten();
        counts.filter(|(key, _)| wanted(key)).filter_map(|(_, count)| count.as_u64()).sum()
    };
    let good = sum("statusCodeDistribution", |code| code == "200");
    let failed =
        sum("statusCodeDistribution", |code| code != "200") + sum("errorDistribution", |_| true);
    let at = |key: &str| {
        let seconds = report["latencyPercentiles"][key].as_f64();
        seconds.map(|seconds| seconds * 1e3).with_context(|| format!("oha has no {key}"))
    };
    let latency = Latency { p50: at("p50")?, p90: at("p90")?, p99: at("p99")?, p999: at("p99.9")? };
    Ok(Done { units: good as f64, latency: Some(latency), failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood_and_errors_are_counted() {
        let text = r#"{"latencyPercentiles": {"p50": 0.001, "p90": 0.002, "p99": 0.003, "p99.9": 0.004},
            "statusCodeDistribution": {"200": 1498, "404": 2}, "errorDistribution": {"refused": 3}}"#;
        let done = read(text).unwrap();
        let latency = Latency { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0 };
        assert_eq!(done, Done { units: 1498.0, latency: Some(latency), failed: 5 });
        assert!(read("{}").is_err());
    }
}
