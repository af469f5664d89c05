//! h2load: HTTP/2, as fast as answers come; plain requests, and calls as gRPC makes them: a POST with
//! a framed message, answered by one and by trailers.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use super::{Done, Latency};
use crate::{
    bench::{
        load::found,
        mesh::{
            ground::{Ground, HEADER},
            servers::GRPC,
        },
    },
    command,
};

const CONNECTIONS: &str = "4";
const STREAMS: &str = "8";
/// Bytes of a call's message; its frame has five more.
const MESSAGE: u32 = 1024;

/// Runs it against a port: that of the calls, or another.
pub(super) fn run(ground: &Ground, time: Duration, port: u16) -> Result<Done> {
    let (name, value) = HEADER;
    let log = ground.dir().join("h2load.log");
    // It appends.
    fs::write(&log, "")?;
    let mut command = ground.client()?;
    command.arg(found("h2load")?).args(["-t", "1", "-c", CONNECTIONS, "-m", STREAMS, "-D"]);
    command.arg(time.as_secs().to_string()).arg("--log-file").arg(&log);
    command.args(["-H", &format!("{name}: {value}")]);
    let mut path = "/";
    if port == GRPC {
        path = "/bench.Echo/Call";
        let message = ground.dir().join("message");
        fs::write(&message, framed(MESSAGE))?;
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]);
        command.arg(&message);
    }
    command.arg(format!("http://{}{path}", ground.address(port)?));
    let report = command::stdout(&mut command)?;
    let latency = latency(&log)?;
    fs::write(&log, "")?;
    Ok(Done { latency, ..read(&report)? })
}

/// A message as gRPC frames it: not compressed, and its length.
fn framed(length: u32) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.resize(bytes.len() + length as usize, b'u');
    bytes
}

/// `requests: 10 total, 12 started, 10 done, 9 succeeded, 1 failed, 1 errored, 0 timeout`; what was
/// under way when time was up counts for neither.
fn read(report: &str) -> Result<Done> {
    let line = report.lines().find_map(|line| line.strip_prefix("requests: "));
    let line = line.with_context(|| format!("h2load has not said how many requests: {report}"))?;
    let count = |name: &str| -> Result<u64> {
        let mut parts = line.split(", ").filter_map(|part| part.split_once(' '));
        let found = parts.find(|(_, what)| *what == name);
        found
            .and_then(|(count, _)| count.parse().ok())
            .with_context(|| format!("no {name}: {line}"))
    };
    // `failed` has those that errored or timed out.
    Ok(Done { units: count("succeeded")? as f64, latency: None, failed: count("failed")? })
}

/// From the log, whose lines have when a request began, its status, and how many microseconds it took.
fn latency(log: &Path) -> Result<Option<Latency>> {
    let text = fs::read_to_string(log)?;
    let mut took: Vec<u64> =
        text.lines().filter_map(|line| line.rsplit('\t').next()?.parse().ok()).collect();
    took.sort_unstable();
    let at = |permille: usize| {
        let place = (took.len() * permille / 1000).min(took.len().saturating_sub(1));
        took.get(place).map(|microseconds| *microseconds as f64 / 1e3)
    };
    let all = (at(500), at(900), at(990), at(999));
    let (Some(p50), Some(p90), Some(p99), Some(p999)) = all else { return Ok(None) };
    Ok(Some(Latency { p50, p90, p99, p999 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood() {
        let text = "finished in 1.00s, 9.00 req/s, 1KB/s\n\
                    requests: 10 total, 12 started, 10 done, 9 succeeded, 1 failed, 1 errored, 0 timeout\n";
        let done = read(text).unwrap();
        assert_eq!((done.units, done.failed), (9.0, 1));
        assert!(read("cannot connect").is_err());
    }

    #[test]
    fn percentiles_are_those_of_the_log() {
        let file = std::env::temp_dir().join(format!("h2load-{}.log", std::process::id()));
        let text: String = (1..=1000).map(|took| format!("17\t200\t{took}\n")).collect();
        fs::write(&file, text).unwrap();
        let found = latency(&file).unwrap().unwrap();
        assert_eq!((found.p50, found.p99), (0.501, 0.991));
        fs::write(&file, "").unwrap();
        assert_eq!(latency(&file).unwrap(), None);
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_message_is_framed_with_its_length() {
        assert_eq!(framed(3), [0, 0, 0, 0, 3, b'u', b'u', b'u']);
    }
}
