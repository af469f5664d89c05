//! The node itself, as `/proc` has it at the moment of the scrape: processors, memory, descriptors, network devices,
//! pressure. What a kernel does not tell has no series, rather than the value 0.

mod procfs;

use std::{cell::LazyCell, fs, os::fd::OwnedFd};

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use undermesh_telemetry::{Metric, prometheus_client::encoding::DescriptorEncoder};

use super::{counters, gauge};
use procfs::Device;

static CPU_SECONDS: Metric = Metric::counter(
    "undermesh_node_cpu_seconds",
    &["mode"],
    "time that all processors of the node together have spent: `user` (virtual machines \
     included), `nice`, `system`, `idle`, `iowait`, `irq`, `softirq`, `steal` (given to other \
     machines of the same host)",
);
static CPUS: Metric = Metric::gauge("undermesh_node_cpus", &[], "processors that are online");
static MEMORY_TOTAL: Metric =
    Metric::gauge("undermesh_node_memory_total_bytes", &[], "memory of the node");
static MEMORY_AVAILABLE: Metric = Metric::gauge(
    "undermesh_node_memory_available_bytes",
    &[],
    "memory that programs can still get without swapping, as the kernel estimates it",
);
static OPEN_FDS: Metric = Metric::gauge(
    "undermesh_node_open_fds",
    &[],
    "files that are open on the whole node (`fs.file-nr`)",
);
static MAX_FDS: Metric =
    Metric::gauge("undermesh_node_max_fds", &[], "files that may be open (`fs.file-max`)");
static NETWORK_BYTES: Metric = Metric::counter(
    "undermesh_node_network_bytes",
    &["device", "direction"],
    "bytes that network devices of the node have received (`in`) and sent (`out`). All metrics of \
     devices are about at most 32 of them, those with the lowest numbers, which are the node's own \
     rather than its pods'; never about loopback",
);
static NETWORK_PACKETS: Metric = Metric::counter(
    "undermesh_node_network_packets",
    &["device", "direction"],
    "packets of the same devices",
);
static NETWORK_ERRORS: Metric = Metric::counter(
    "undermesh_node_network_errors",
    &["device", "direction"],
    "packets that were received damaged or could not be sent",
);
static NETWORK_DROPS: Metric = Metric::counter(
    "undermesh_node_network_drops",
    &["device", "direction"],
    "packets that were dropped, for want of room most of all",
);
static DEVICES_LEFT_OUT: Metric = Metric::gauge(
    "undermesh_node_network_devices_left_out",
    &[],
    "network devices of the node without such series, because there are more than 32",
);
static PRESSURE_SECONDS: Metric = Metric::counter(
    "undermesh_node_pressure_seconds",
    &["resource", "share"],
    "time that work has waited for `cpu`, `memory` or `io`: `some` of it, or all (`full`), as \
     [PSI](https://docs.kernel.org/accounting/psi.html) has it; absent where the kernel has none",
);

/// Devices that have series of their own.
const MOST_DEVICES: usize = 32;
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// All of it.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    encode_processors(encoder)?;
    encode_memory(encoder)?;
    encode_descriptors(encoder)?;
    encode_devices(encoder)?;
    encode_pressure(encoder)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn encode_processors(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let text = read("/proc/stat");
    let modes = procfs::cpu_seconds(&text);
    counters(&CPU_SECONDS, encoder, modes.into_iter().map(|(mode, time)| ([mode], time)))?;
    gauge(&CPUS, encoder, procfs::cpus(&text))
}

fn encode_memory(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let text = read("/proc/meminfo");
    for (metric, name) in [(&MEMORY_TOTAL, "MemTotal"), (&MEMORY_AVAILABLE, "MemAvailable")] {
        gauge(metric, encoder, procfs::memory(&text, name))?;
    }
    Ok(())
}

fn encode_descriptors(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let files = procfs::files(&read("/proc/sys/fs/file-nr"));
    gauge(&OPEN_FDS, encoder, files.map(|(open, _)| open))?;
    gauge(&MAX_FDS, encoder, files.map(|(_, most)| most))
}

/// Of the agent's network namespace, which is the node's.
fn encode_devices(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let text = read("/proc/self/net/dev");
    let mut devices = procfs::devices(&text);
    devices.retain(|device| device.name != "lo");
    let socket = LazyCell::new(|| socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok());
    let left_out = bound(&mut devices, |name| number(socket.as_ref(), name));
    let families = [&NETWORK_BYTES, &NETWORK_PACKETS, &NETWORK_ERRORS, &NETWORK_DROPS];
    for (column, metric) in families.into_iter().enumerate() {
        let series = devices.iter().flat_map(|device| {
            let directions = [("in", device.received[column]), ("out", device.sent[column])];
            directions.map(|(direction, count)| ([device.name, direction], count))
        });
        counters(metric, encoder, series)?;
    }
    gauge(&DEVICES_LEFT_OUT, encoder, Some(left_out))
}

/// What the kernel numbers devices with, from the first on. One that has gone meanwhile comes last.
fn number(socket: Option<&OwnedFd>, name: &str) -> u32 {
    socket.and_then(|socket| name_to_index(socket, name).ok()).unwrap_or(u32::MAX)
}

/// Leaves the devices with the lowest numbers, and says how many others there were.
fn bound(devices: &mut Vec<Device<'_>>, number: impl Fn(&str) -> u32) -> i64 {
    let left_out = devices.len().saturating_sub(MOST_DEVICES);
    if left_out > 0 {
        devices.sort_by_cached_key(|device| number(device.name));
        devices.truncate(MOST_DEVICES);
    }
    left_out as i64
}

fn encode_pressure(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let waits = RESOURCES.into_iter().flat_map(|resource| {
        let waits = procfs::pressure(&read(&format!("/proc/pressure/{resource}")));
        waits.into_iter().map(move |(share, time)| ([resource, share], time))
    });
    counters(&PRESSURE_SECONDS, encoder, waits)
}

#[cfg(test)]
mod tests {
    use undermesh_telemetry::prometheus_client::{
        collector::Collector, encoding::text, registry::Registry,
    };
    use undermesh_tests::Reference;

    use super::*;

    #[derive(Debug)]
    struct Host;

    impl Collector for Host {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
            encode(&mut encoder)
        }
    }

    #[test]
    fn this_node_is_told_of_as_is_documented() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Host));
        let mut found = String::new();
        text::encode(&mut found, &registry).unwrap();
        let seen = Reference::read().unwrap().check(&found).unwrap();
        for name in ["cpu_seconds_total", "cpus", "memory_total_bytes", "open_fds", "max_fds"] {
            assert!(seen.contains(&format!("undermesh_node_{name}")), "no {name} in {found}");
        }
        assert!(!found.contains("device=\"lo\""), "{found}");
        let value = |name: &str| -> f64 {
            let line = found.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse().unwrap()
        };
        let available = value("undermesh_node_memory_available_bytes ");
        assert!(available > 0.0 && available < value("undermesh_node_memory_total_bytes "));
        assert!(value("undermesh_node_open_fds ") < value("undermesh_node_max_fds "));
        assert!(value("undermesh_node_cpu_seconds_total{mode=\"user\"}") > 0.0);
    }

    #[test]
    fn of_many_devices_the_first_ones_stay() {
        let names: Vec<String> = (0..40).map(|number| format!("veth{number}")).collect();
        let device = |name: &'_ String| -> Device<'static> {
            Device { name: name.clone().leak(), received: [0; 4], sent: [0; 4] }
        };
        let mut devices: Vec<Device<'_>> = names.iter().rev().map(device).collect();
        let number = |name: &str| name.trim_start_matches("veth").parse().unwrap();
        assert_eq!(bound(&mut devices, number), 8);
        assert_eq!(devices.len(), MOST_DEVICES);
        assert!(devices.iter().all(|device| number(device.name) < 32));
        assert_eq!(bound(&mut devices, number), 0);
    }
}
