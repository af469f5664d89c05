//! What is done to be measured: well-known load generators, and how their reports are read.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, de::DeserializeOwned};

use super::ground::{BULK_PORT, HTTP_PORT, Variant};
use crate::command;

/// Those that ask for as much as they get.
const BUSY: Clients = Clients { connections: 32, script: "" };
/// Those that pause before each request, for 40 ms on the average.
const PACED: Clients =
    Clients { connections: 64, script: "function delay() return math.random(0, 80) end" };
const MEBIBYTE: f64 = (1 << 20) as f64;
/// What wrk runs at its end: its own report is for people.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"bytes":%d,"failed":%d}\n', summary.requests, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

/// Clients of one kind.
struct Clients {
    /// Connections at a time.
    connections: u32,
    /// What wrk asks besides.
    script: &'static str,
}

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Requests on connections that stay open.
    KeepAlive,
    /// The same, with a pause of up to 80 ms before each: so many requests as there are, and not as can be done.
    Paced,
    /// A connection for every request.
    NewConnections,
    /// One stream that goes as fast as it can.
    Bulk,
}

/// What wrk's script says.
#[derive(Debug, Deserialize)]
struct Requests {
    requests: u64,
    bytes: u64,
    failed: u64,
}

impl Load {
    /// What it is called in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive requests",
            Self::Paced => "keep-alive, with pauses",
            Self::NewConnections => "a connection per request",
            Self::Bulk => "bulk, one stream",
        }
    }

    /// What a piece of it is.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::KeepAlive | Self::Paced | Self::NewConnections => "requests",
            Self::Bulk => "MiB",
        }
    }

    /// Does it for about `time`; returns how many pieces were done. One that fails is an error: what
    /// fails fast must not look like speed.
    pub(super) fn run(self, variant: &Variant<'_>, time: Duration) -> Result<f64> {
        match self {
            Self::KeepAlive => requests(variant, time, &BUSY, &[]),
            Self::Paced => requests(variant, time, &PACED, &[]),
            Self::NewConnections => requests(variant, time, &BUSY, &["-H", "Connection: close"]),
            Self::Bulk => bulk(variant, time),
        }
    }
}

fn requests(
    variant: &Variant<'_>,
    time: Duration,
    clients: &Clients,
    options: &[&str],
) -> Result<f64> {
    let script = variant.ground.dir().join("done.lua");
    fs::write(&script, [clients.script, SCRIPT].concat())?;
    let mut wrk = variant.client()?;
    wrk.arg(found("wrk")?)
        .args(["--threads", "1", "--connections"])
        .arg(clients.connections.to_string());
    wrk.arg("--duration").arg(format!("{}s", time.as_secs())).arg("--script").arg(&script);
    wrk.args(options).arg(format!("http://{}:{HTTP_PORT}/", variant.to));
    let report: Requests = said(&command::stdout(&mut wrk)?)?;
    ensure!(report.failed == 0, "{} of {} requests failed", report.failed, report.requests);
    ensure!(
        report.bytes / report.requests.max(1) >= 1024,
        "the answers were too short: {report:?}"
    );
    Ok(report.requests as f64)
}

/// What a script has wrk say at its end: a line of JSON.
pub(super) fn said<T: DeserializeOwned>(report: &str) -> Result<T> {
    let line = report.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("wrk has not said how many requests: {report}"))?;
    serde_json::from_str(line).with_context(|| format!("unexpected report of wrk: {line}"))
}

fn bulk(variant: &Variant<'_>, time: Duration) -> Result<f64> {
    let mut iperf = variant.client()?;
    iperf.arg(found("iperf3")?).arg("--client").arg(variant.to.to_string());
    iperf.args(["--port", &BULK_PORT.to_string(), "--time", &time.as_secs().to_string(), "--json"]);
    read_bulk(&command::stdout(&mut iperf)?)
}

/// What has arrived as iperf3 says, in mebibytes.
pub(super) fn read_bulk(report: &str) -> Result<f64> {
    let report: serde_json::Value = serde_json::from_str(report)?;
    let bytes = report.pointer("/end/sum_received/bytes").and_then(serde_json::Value::as_f64);
    Ok(bytes.context("iperf3 has not said how many bytes arrived")? / MEBIBYTE)
}

/// A tool's full path: what runs inside pods may have another search path.
pub(super) fn found(tool: &str) -> Result<std::path::PathBuf> {
    command::find(tool).with_context(|| format!("{tool} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_the_tools_are_understood() {
        let wrk =
            "Running 1s test\n  1 threads\n\n{\"requests\":10,\"bytes\":12345,\"failed\":1}\n";
        let found: Requests = said(wrk).unwrap();
        assert_eq!((found.requests, found.bytes, found.failed), (10, 12345, 1));
        assert!(said::<Requests>("unable to connect").is_err());
        let iperf = r#"{"end": {"sum_received": {"bytes": 3145728}}}"#;
        assert_eq!(read_bulk(iperf).unwrap(), 3.0);
        assert!(read_bulk(r#"{"error": "refused"}"#).is_err());
    }
}
