//! wrk: HTTP/1.1, as fast as answers come.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{Done, Latency};
use crate::{
    bench::{
        load::{found, said},
        mesh::{
            ground::{Ground, HEADER},
            servers::HTTP,
        },
    },
    command,
};

/// What it runs at its end: its own report is for people.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"bytes":%d,"failed":%d,"latency":[%f,%f,%f,%f]}\n',
    summary.requests, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"#;

/// What the script says; latency in microseconds.
#[derive(Debug, Deserialize)]
struct Report {
    requests: u64,
    bytes: u64,
    failed: u64,
    latency: [f64; 4],
}

/// Runs it on so many connections.
pub(super) fn run(
    ground: &Ground,
    time: Duration,
    connections: u32,
    options: &[&str],
) -> Result<Done> {
    let script = ground.dir().join("wrk.lua");
    fs::write(&script, SCRIPT)?;
    let (name, value) = HEADER;
    let mut wrk = ground.client()?;
    wrk.arg(found("wrk")?).args(["--threads", "1", "--timeout", "10s", "--connections"]);
    wrk.arg(connections.to_string()).arg("--duration").arg(format!("{}s", time.as_secs()));
    wrk.arg("--script").arg(&script).args(["-H", &format!("{name}: {value}")]).args(options);
    wrk.arg(format!("http://{}/", ground.address(HTTP)?));
    read(&command::stdout(&mut wrk)?)
}

fn read(report: &str) -> Result<Done> {
    let report: Report = said(report)?;
    let good = report.requests.saturating_sub(report.failed);
    // What fails fast must not look like speed, nor a short answer like a good one.
    ensure!(report.bytes >= good * 1024, "the answers were too short: {report:?}");
    let [p50, p90, p99, p999] = report.latency.map(|microseconds| microseconds / 1e3);
    let latency = Some(Latency { p50, p90, p99, p999 });
    Ok(Done { units: good as f64, latency, failed: report.failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood_and_failures_are_no_work() {
        let text = "Running 1s test\n\n{\"requests\":10,\"bytes\":12345,\"failed\":1,\
                    \"latency\":[100.0,200.0,3000.0,4000.0]}\n";
        let done = read(text).unwrap();
        let latency = Latency { p50: 0.1, p90: 0.2, p99: 3.0, p999: 4.0 };
        assert_eq!(done, Done { units: 9.0, latency: Some(latency), failed: 1 });
        assert!(read("unable to connect").is_err());
        assert!(read(&text.replace("12345", "345")).is_err());
    }
}
