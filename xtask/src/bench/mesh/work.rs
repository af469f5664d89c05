//! The kinds of work, and the well-kept tools that do them: each in a file, with how its report is
//! read.

mod h2load;
mod iperf;
mod oha;
mod wrk;

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer};

use super::{ground::Ground, servers, way::Way};
use crate::{install, workspace::Workspace};

/// Requests a second of the open loop.
pub(super) const OPEN_RATE: u32 = 500;
/// The open loop's generator: none of Debian's corrects for coordinated omission.
const OHA_VERSION: &str = "1.16.0";

/// Where it is, once it is installed.
static OHA: OnceLock<PathBuf> = OnceLock::new();

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Work {
    /// HTTP/1.1, closed loop, 1 connection (wrk)
    #[value(name = "keep-alive-1")]
    KeepAlive1,
    /// HTTP/1.1, closed loop, 32 connections (wrk)
    #[value(name = "keep-alive-32")]
    KeepAlive32,
    /// HTTP/1.1, closed loop, 1,024 connections (wrk)
    #[value(name = "keep-alive-1024")]
    KeepAlive1024,
    /// HTTP/1.1, 500 requests a second on 32 connections, latency from when each was due (oha)
    OpenLoop,
    /// HTTP/1.1, a connection for each request, 32 at a time (wrk)
    NewConnections,
    /// HTTP/2, 4 connections of 8 streams (h2load)
    Http2,
    /// gRPC calls, 4 connections of 8 streams (h2load)
    Grpc,
    /// Bulk TCP, 1 stream (iperf3)
    #[value(name = "bulk-1")]
    Bulk1,
    /// Bulk TCP, 4 streams (iperf3)
    #[value(name = "bulk-4")]
    Bulk4,
    /// 10,000 connections (as the limit of open files allows), each used once and kept: memory
    Idle,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Done {
    /// Pieces of work: requests, or mebibytes.
    pub(super) units: f64,
    /// How long each took, where that was measured.
    pub(super) latency: Option<Latency>,
    /// Pieces that failed.
    pub(super) failed: u64,
}

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
}

impl Work {
    /// All of them, in the order of tables.
    pub(super) const ALL: [Self; 10] = [
        Self::KeepAlive1,
        Self::KeepAlive32,
        Self::KeepAlive1024,
        Self::OpenLoop,
        Self::NewConnections,
        Self::Http2,
        Self::Grpc,
        Self::Bulk1,
        Self::Bulk4,
        Self::Idle,
    ];

    /// As it is named on the command line and in results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::KeepAlive1 => "keep-alive-1",
            Self::KeepAlive32 => "keep-alive-32",
            Self::KeepAlive1024 => "keep-alive-1024",
            Self::OpenLoop => "open-loop",
            Self::NewConnections => "new-connections",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Bulk1 => "bulk-1",
            Self::Bulk4 => "bulk-4",
            Self::Idle => "idle",
        }
    }

    /// What it is, for a table's title.
    pub(super) fn title(self) -> String {
        match self {
            Self::KeepAlive1 => "HTTP/1.1, closed loop, 1 connection".to_owned(),
            Self::KeepAlive32 => "HTTP/1.1, closed loop, 32 connections".to_owned(),
            Self::KeepAlive1024 => "HTTP/1.1, closed loop, 1,024 connections".to_owned(),
            Self::OpenLoop => format!("HTTP/1.1, open loop, {OPEN_RATE} requests a second"),
            Self::NewConnections => "HTTP/1.1, a connection for each request".to_owned(),
            Self::Http2 => "HTTP/2, 4 connections of 8 streams".to_owned(),
            Self::Grpc => "gRPC calls, 4 connections of 8 streams".to_owned(),
            Self::Bulk1 => "bulk TCP, 1 stream".to_owned(),
            Self::Bulk4 => "bulk TCP, 4 streams".to_owned(),
            Self::Idle => "idle connections, each used once".to_owned(),
        }
    }

    /// What a piece of it is.
    pub(super) fn unit(self) -> &'static str {
        if self.is_bulk() { "MiB" } else { "requests" }
    }

    /// Whether it is bytes that are counted.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, Self::Bulk1 | Self::Bulk4)
    }

    /// Whether a way can do it: bulk is no request that could be routed, and what many services cost is
    /// asked of connections only.
    pub(super) fn fits(self, way: Way) -> bool {
        match way {
            Way::L7 | Way::EnvoyL7 => !self.is_bulk(),
            Way::L4Services => matches!(self, Self::KeepAlive32 | Self::NewConnections),
            _ => true,
        }
    }

    /// How long it goes on before it is measured. A thousand connections that are just being opened measure that, which is
    /// another kind of work; a client that had them a moment ago is what agents see of a busy one.
    pub(super) fn lead_in(self) -> Duration {
        match self {
            Self::KeepAlive1024 => Duration::from_secs(1),
            _ => Duration::ZERO,
        }
    }

    /// Does it for about `time`.
    pub(super) fn run(self, ground: &Ground, time: Duration) -> Result<Done> {
        match self {
            Self::KeepAlive1 => wrk::run(ground, time, 1, &[]),
            Self::KeepAlive32 => wrk::run(ground, time, 32, &[]),
            Self::KeepAlive1024 => wrk::run(ground, time, 1024, &[]),
            Self::NewConnections => wrk::run(ground, time, 32, &["-H", "Connection: close"]),
            Self::OpenLoop => oha::run(OHA.get().context("no oha")?, ground, time),
            Self::Http2 => h2load::run(ground, time, servers::HTTP2),
            Self::Grpc => h2load::run(ground, time, servers::GRPC),
            Self::Bulk1 => iperf::run(ground, time, 1),
            Self::Bulk4 => iperf::run(ground, time, 4),
            Self::Idle => Ok(Done::default()),
        }
    }
}

impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Makes sure that the tools are there which are not Debian's.
pub(super) fn install(workspace: &Workspace, policy: install::Policy) -> Result<()> {
    let purpose = "makes requests at a steady rate";
    let oha = install::pinned_tool(workspace, "oha", OHA_VERSION, purpose, policy)?;
    // A second call finds the same.
    let _ = OHA.set(oha);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_work_is_listed_and_named_as_on_the_command_line() {
        assert_eq!(Work::ALL, *Work::value_variants());
        for work in Work::ALL {
            assert_eq!(work.to_possible_value().unwrap().get_name(), work.name());
        }
    }
}
