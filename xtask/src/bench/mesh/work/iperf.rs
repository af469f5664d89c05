//! iperf3: bytes, as fast as they go.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Done;
use crate::{
    bench::{
        load::found,
        mesh::{ground::Ground, servers::BULK},
    },
    command,
};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// Sends on so many streams.
pub(super) fn run(ground: &Ground, time: Duration, streams: u32) -> Result<Done> {
    let to = ground.address(BULK)?;
    let mut iperf = ground.client()?;
    iperf.arg(found("iperf3")?).arg("--client").arg(to.ip().to_string());
    iperf.args(["--port", &to.port().to_string(), "--parallel", &streams.to_string()]);
    iperf.args(["--time", &time.as_secs().to_string(), "--json"]);
    read(&command::stdout(&mut iperf)?)
}

/// What has arrived counts.
fn read(report: &str) -> Result<Done> {
    let report: Value = serde_json::from_str(report)?;
    let bytes = report.pointer("/end/sum_received/bytes").and_then(Value::as_f64);
    let bytes = bytes.context("iperf3 has not said how many bytes arrived")?;
    Ok(Done { units: bytes / MEBIBYTE, latency: None, failed: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood() {
        let text = r#"{"end": {"sum_received": {"bytes": 3145728}}}"#;
        assert_eq!(read(text).unwrap().units, 3.0);
        assert!(read(r#"{"error": "refused"}"#).is_err());
    }
}
