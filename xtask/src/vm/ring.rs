//! The kernel ring: which of the namespace tests every kernel has to pass. Each stands for something
//! that depends on the kernel; what depends on our code alone is tested on the host.
//!
//! Emulated processors are slow: a test takes some ten times as long as on the host.

use std::time::Duration;

use undermesh_tests::vm::PlannedTest;

/// Seconds that one test may take.
const LIMIT: u64 = 240;

/// Test executables, and their tests, in the order in which one would look for a fault.
const RING: [(&str, &[&str]); 9] = [
    // The rig itself, without a mesh: if this fails, the place is at fault.
    ("netns_rig", &["pods_reach_each_other_on_one_node_and_across_nodes_in_both_families"]),
    // Every program attached, and seen there by the kernel's own account.
    ("netns_lifecycle", &["status_shows_pods_certificates_programs_and_maps"]),
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
    ("netns_failures", &["a_service_without_endpoints_refuses_and_the_log_says_so"]),
    // What applications see of addresses: getpeername, getsockname, IPv4 from an IPv6 socket.
    (
        "netns_addresses",
        &[
            "an_application_sees_the_address_that_it_dialled_and_its_own",
            "an_ipv4_destination_may_be_dialled_from_an_ipv6_socket",
        ],
    ),
    // Policy, in the kernel and in the proxy; plaintext captured where the kernel cannot judge.
    ("netns_policy", &["a_denied_service_account_is_refused_on_its_own_node_and_on_another"]),
    (
        "netns_capture",
        &[
            "closed_ports_stay_closed_and_open_ones_are_found_at_once",
            "the_kubelet_reaches_the_ports_that_it_probes_and_nobody_else_from_its_node_does",
        ],
    ),
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
