//! What the kernel counts of the programs, and of the node's IP traffic.

use std::fs;

use undermesh_datapath::ProgramRuns;
use undermesh_telemetry::{Metric, prometheus_client::encoding::DescriptorEncoder};

use super::counters;

static PROGRAM_RUNS: Metric = Metric::counter(
    "undermesh_program_runs",
    &["program"],
    "times that an eBPF program has run, since it was loaded, while the kernel counts \
     (`kernel.bpf_stats_enabled`); absent where it never has",
);
static PROGRAM_RUN_SECONDS: Metric = Metric::counter(
    "undermesh_program_run_seconds",
    &["program"],
    "how long its runs took, on the same conditions",
);
static NODE_IP_BYTES: Metric = Metric::counter(
    "undermesh_node_ip_bytes",
    &["direction"],
    "bytes of IP packets that the network namespace of the node has received (`in`) and sent \
     (`out`), loopback and forwarded ones included",
);

/// Nothing at all where the kernel does not count.
pub(super) fn encode_runs(
    runs: &[ProgramRuns],
    encoder: &mut DescriptorEncoder<'_>,
) -> std::fmt::Result {
    let counts = runs.iter().map(|program| ([program.name], program.count));
    counters(&PROGRAM_RUNS, encoder, counts)?;
    let times = runs.iter().map(|program| ([program.name], program.time.as_secs_f64()));
    counters(&PROGRAM_RUN_SECONDS, encoder, times)
}

/// Of the agent's network namespace, which is the node's. What cannot be read is left out.
pub(super) fn encode_traffic(encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
    let v4 = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    let names = [("in", "InOctets", "Ip6InOctets"), ("out", "OutOctets", "Ip6OutOctets")];
    let sums = names.into_iter().filter_map(|(direction, v4_name, v6_name)| {
        let bytes = of_netstat(&v4, v4_name)? + of_snmp6(&v6, v6_name).unwrap_or_default();
        Some(([direction], bytes))
    });
    counters(&NODE_IP_BYTES, encoder, sums)
}

/// `/proc/net/netstat` has pairs of lines: names, then values.
fn of_netstat(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|found| found == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

fn of_snmp6(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(|line| line.split_whitespace());
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_read_of_both_families() {
        let netstat =
            "TcpExt: InOctets\nTcpExt: 9\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 700 800\n";
        assert_eq!(of_netstat(netstat, "InOctets"), Some(700));
        assert_eq!(of_netstat(netstat, "OutOctets"), Some(800));
        assert_eq!(of_netstat(netstat, "Missing"), None);
        assert_eq!(of_netstat("", "InOctets"), None);
        let snmp6 = "Ip6InReceives                   \t3\nIp6InOctets                     \t44\n";
        assert_eq!(of_snmp6(snmp6, "Ip6InOctets"), Some(44));
        assert_eq!(of_snmp6(snmp6, "Ip6OutOctets"), None);
    }

    #[test]
    fn this_kernel_has_them() {
        let v4 = fs::read_to_string("/proc/self/net/netstat").unwrap();
        assert!(of_netstat(&v4, "InOctets").is_some() && of_netstat(&v4, "OutOctets").is_some());
    }
}
