//! iperf3: bytes, as fast as they go.

use std::time::Duration;

use anyhow::Result;

use super::Done;
use crate::{
    bench::{
        load::{found, read_bulk},
        mesh::{ground::Ground, servers::BULK},
    },
    command,
};

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
    Ok(Done { units: read_bulk(report)?, latency: None, failed: 0 })
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
