//! What the mesh's processes occupy: while work is done, and while there are thousands of connections on
//! which one request has been answered and nothing more happens. Each in a rig of its own, from the start:
//! what earlier work has left behind, freed but not given back, would hide what later work needs.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};
use undermesh_tests::locate;

use super::{
    ground::{Ground, HEADER},
    measured::Memory,
    resident::{self, Watch},
    servers::HTTP,
    way::Way,
    work::Work,
};

/// Work on no more than 32 connections.
const WORK: [Work; 4] = [Work::KeepAlive32, Work::NewConnections, Work::Http2, Work::Bulk1];
/// As many as are opened where the limit of open files allows it.
const CONNECTIONS: u64 = 10_000;
/// How many open files a connection is counted with: a proxy has two, and agents shed load before the
/// last one is used.
const FILES: f64 = 2.5;
/// Before: what everything needs is there.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long it is waited before memory is looked at: buffers that are freed late are not counted.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures both.
pub(super) fn run(way: Way, each: Duration) -> Result<Memory> {
    let working = working(way, each)?;
    Ok(Memory { working, ..held(way)? })
}

fn working(way: Way, each: Duration) -> Result<u64> {
    let ground = Ground::new(way, "w")?;
    let watch = Watch::begin(ground.mesh());
    for work in WORK.into_iter().filter(|work| work.fits(way)) {
        work.run(&ground, each)?;
        ground.forget_logs()?;
    }
    watch.end()
}

/// Opens connections, looks, and closes them.
fn held(way: Way) -> Result<Memory> {
    let ground = Ground::new(way, "i")?;
    Work::KeepAlive32.run(&ground, WARM_UP)?;
    let connections = count(getrlimit(Resource::Nofile).current);
    let before = resident::of(ground.mesh())?;
    let (name, value) = HEADER;
    let mut hold = ground.client()?;
    hold.arg(locate("undermesh-bench")?).arg("hold").arg(ground.address(HTTP)?.to_string());
    hold.arg(connections.to_string()).args(["--header", &format!("{name}: {value}")]);
    hold.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hold = hold.spawn().context("cannot hold connections")?;
    let mut line = String::new();
    let output = hold.stdout.take().context("it has no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let held = line.trim() == format!("held {connections}");
    if held {
        std::thread::sleep(SETTLE);
    }
    let during = resident::of(ground.mesh());
    // It ends with its input.
    drop(hold.stdin.take());
    let status = hold.wait()?;
    ensure!(held && status.success(), "the connections could not be opened; what failed is above");
    Ok(Memory { variant: way, working: 0, connections, before, during: during? })
}

fn count(open_files: Option<u64>) -> u64 {
    let allowed = open_files.map(|limit| (limit as f64 / FILES) as u64);
    allowed.map_or(CONNECTIONS, |allowed| allowed.min(CONNECTIONS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_files_for_them() {
        assert_eq!(count(None), CONNECTIONS);
        assert_eq!(count(Some(1 << 17)), CONNECTIONS);
        assert_eq!(count(Some(20_000)), 8_000);
    }
}
