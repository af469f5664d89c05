//! The kernel ring: which of the namespace tests every kernel has to pass. Each stands for something
//! that depends on the kernel; what depends on our code alone is tested on the host.
//!
//! Emulated processors are slow: a test takes some ten times as long as on the host.

use std::time::Duration;

use anyhow::{Result, ensure};
use undermesh_tests::vm::PlannedTest;

use crate::{command, test::build::Built};

/// Seconds that one test may take.
const LIMIT: u64 = 240;

/// Test executables, and their tests, in the order in which one would look for a fault.
const RING: [(&str, &[&str]); 18] = [
    // The rig itself, without a mesh: if this fails, the place is at fault.
    ("netns_rig", &["pods_reach_each_other_on_one_node_and_across_nodes_in_both_families"]),
    // Features: what this kernel lacks is told, with what happens without; the rest is there.
    (
        "netns_doctor_kernel",
        &[
            "a_kernel_lacks_what_came_after_it_and_nothing_else_and_degrades_where_something_replaces_it",
            "a_limit_of_locked_memory_is_found_where_maps_count_against_it",
        ],
    ),
    // Every program attached, and seen there by the kernel's own account.
    ("netns_lifecycle", &["status_shows_pods_certificates_programs_and_maps"]),
    // What takes the place of what this kernel lacks.
    (
        "netns_degradation",
        &[
            "stand_ins_run_where_the_kernel_lacks_something_and_nowhere_else",
            "an_agent_under_a_small_limit_of_locked_memory_serves",
        ],
    ),
    // Verdicts: local, proxied, refused, left alone; in both families.
    (
        "netns_local",
        &[
            "a_pod_of_the_same_node_is_reached_without_the_proxy",
            "a_strict_pod_takes_its_meshed_neighbour_and_refuses_the_unmeshed_one",
        ],
    ),
    (
        "netns_wire",
        &[
            // Two nodes and mutual TLS between them.
            "what_the_mesh_carries_never_crosses_the_wire_in_clear",
            "a_strict_pod_refuses_plaintext_and_says_so_and_still_takes_the_mesh",
        ],
    ),
    // The native wire goes to the application's own port, where a program of ours has to steer it.
    ("netns_native", &["peers_meet_at_the_applications_own_port_and_both_see_whom_they_should"]),
    ("netns_failures", &["a_service_without_endpoints_refuses_and_the_log_says_so"]),
    // What applications see of addresses: getpeername, getsockname, IPv4 from an IPv6 socket.
    (
        "netns_addresses",
        &[
            "an_application_sees_the_address_that_it_dialled_and_its_own",
            "an_ipv4_destination_may_be_dialled_from_an_ipv6_socket",
        ],
    ),
    // What servers see of their clients: from the kernel's programs, and from its own tables.
    (
        "netns_sources",
        &[
            "a_server_sees_the_client_behind_the_tunnel_in_both_families",
            "a_server_sees_its_neighbour_as_it_is",
        ],
    ),
    ("netns_transparent", &["the_kernels_own_tables_show_the_client_in_both_families"]),
    // Multipath TCP, whose sockets other hooks see than plain TCP's, and which 5.10 does not have.
    (
        "netns_mptcp",
        &["multipath_tcp_is_had_or_refused_as_without_a_mesh_and_plain_tcp_serves_either_way"],
    ),
    // Policy, in the kernel and in the proxy; plaintext captured where the kernel cannot judge.
    ("netns_policy", &["a_denied_service_account_is_refused_on_its_own_node_and_on_another"]),
    (
        "netns_capture",
        &[
            "plaintext_is_judged_by_its_address_and_the_application_sees_who_it_is",
            "closed_ports_stay_closed_and_open_ones_are_found_at_once",
            "the_kubelet_reaches_the_ports_that_it_probes_and_nobody_else_from_its_node_does",
        ],
    ),
    // Live connections that a new policy refuses: the kernel is asked to end them.
    ("netns_live", &["local_connections_that_a_policy_refuses_now_are_reset_and_others_go_on"]),
    // The gate, which has to know a pod by its cgroup before the agent knows it at all.
    ("netns_gate", &["a_pod_that_is_not_programmed_is_refused_until_it_is"]),
    // A change of agents: programs are replaced under connections that go on.
    ("netns_handover", &["a_draining_agent_still_ends_what_a_later_policy_refuses"]),
    // Pins: adopted after a restart, gone after a cleanup.
    (
        "netns_lifecycle",
        &[
            "a_killed_agent_refuses_while_it_is_down_and_recovers_without_touching_pods",
            "cleanup_removes_every_trace_and_leaves_pods_as_they_were",
        ],
    ),
];

/// How long one test may take.
pub(crate) fn limit() -> Duration {
    Duration::from_secs(LIMIT)
}

/// Everything that has to pass.
pub(crate) fn tests() -> Vec<PlannedTest> {
    RING.iter()
        .flat_map(|(program, tests)| tests.iter().map(|test| planned(program, test)))
        .collect()
}

/// Namespace tests whose name contains `filter`, of the ring or not.
pub(crate) fn matching(built: &Built, filter: &str) -> Result<Vec<PlannedTest>> {
    let mut tests = Vec::new();
    for (program, executable) in built.netns_tests() {
        let mut list = std::process::Command::new(executable);
        let list = command::stdout(list.args(["--list", "--format", "terse"]))?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(
            names.map(|name| planned(program, name)).filter(|test| test.name().contains(filter)),
        );
    }
    ensure!(!tests.is_empty(), "no namespace test has {filter:?} in its name");
    Ok(tests)
}

/// A test with the ring's limit.
pub(crate) fn planned(program: &str, test: &str) -> PlannedTest {
    PlannedTest { program: program.to_owned(), test: test.to_owned(), limit: LIMIT }
}

#[cfg(test)]
mod tests_of_the_ring {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_test_of_the_ring_exists_and_is_named_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
        let mut seen = BTreeSet::new();
        for test in tests() {
            let source = fs::read_to_string(root.join(format!("{}.rs", test.program))).unwrap();
            assert!(source.contains(&format!("fn {}()", test.test)), "{}", test.name());
            assert!(seen.insert(test.name()), "{} twice", test.name());
        }
    }
}
