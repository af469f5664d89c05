//! Which PeerAuthentication wins.

use undermesh_ebpf_common::workload_flags;
use undermesh_model::MtlsMode::{self, Disable, Permissive, Strict};

use super::*;
use crate::addr;

struct Case {
    what: &'static str,
    /// Namespace, name, age (the higher the older), selector, mode, port modes.
    written: Vec<Written>,
    default: MtlsMode,
    ports: Vec<(u16, MtlsMode)>,
    diagnostics: usize,
}

type Written = (&'static str, &'static str, i64, &'static str, Option<MtlsMode>, Ports);
type Ports = Vec<(u16, Option<MtlsMode>)>;

fn cases() -> Vec<Case> {
    let case = |what, written, default, ports, diagnostics| Case {
        what,
        written,
        default,
        ports,
        diagnostics,
    };
    let none = || Vec::new();
    vec![
        case("nothing is written", none(), Permissive, vec![], 0),
        case("the mesh decides", vec![(ROOT, "m", 1, "", Some(Strict), vec![])], Strict, vec![], 0),
        case(
            "the namespace beats the mesh",
            vec![
                (ROOT, "m", 1, "", Some(Strict), vec![]),
                ("shop", "n", 1, "", Some(Disable), vec![]),
            ],
            Disable,
            vec![],
            0,
        ),
        case(
            "UNSET inherits",
            vec![
                (ROOT, "m", 1, "", Some(Strict), vec![]),
                ("shop", "n", 1, "", None, vec![]),
                ("shop", "w", 1, "app=cart", None, vec![]),
            ],
            Strict,
            vec![],
            0,
        ),
        case(
            "the workload beats the namespace",
            vec![
                ("shop", "n", 1, "", Some(Strict), vec![]),
                ("shop", "w", 1, "app=cart", Some(Permissive), vec![]),
            ],
            Permissive,
            vec![],
            0,
        ),
        case(
            "other namespaces and other labels are none of its business",
            vec![
                ("other", "n", 1, "", Some(Strict), vec![]),
                ("shop", "w", 1, "app=web", Some(Strict), vec![]),
                ("other", "w", 1, "app=cart", Some(Strict), vec![]),
            ],
            Permissive,
            vec![],
            0,
        ),
        case(
            "ports have modes of their own, and UNSET is that of the workload",
            vec![(
                "shop",
                "w",
                1,
                "app=cart",
                Some(Strict),
                vec![(80, Some(Permissive)), (81, None), (82, Some(Strict)), (83, Some(Disable))],
            )],
            Strict,
            vec![(80, Permissive), (83, Disable)],
            0,
        ),
        case(
            "ports differ from what is inherited",
            vec![
                ("shop", "n", 1, "", Some(Strict), vec![]),
                ("shop", "w", 1, "app=cart", None, vec![(80, Some(Permissive))]),
            ],
            Strict,
            vec![(80, Permissive)],
            0,
        ),
        case(
            "the oldest wins",
            vec![
                ("shop", "a", 1, "", Some(Strict), vec![]),
                ("shop", "b", 2, "", Some(Disable), vec![]),
                ("shop", "c", 1, "app=cart", Some(Permissive), vec![]),
                ("shop", "d", 2, "app=cart", Some(Strict), vec![(80, Some(Permissive))]),
            ],
            Strict,
            vec![(80, Permissive)],
            2,
        ),
        case(
            "of the same age, the first by name wins",
            vec![
                ("shop", "b", 1, "", Some(Strict), vec![]),
                ("shop", "a", 1, "", Some(Disable), vec![]),
            ],
            Disable,
            vec![],
            1,
        ),
        case(
            "a selector in the root namespace and ports without a selector have no effect",
            vec![
                (ROOT, "w", 1, "app=cart", Some(Strict), vec![]),
                ("shop", "n", 1, "", None, vec![(80, Some(Strict))]),
            ],
            Permissive,
            vec![],
            2,
        ),
    ]
}

#[test]
fn the_nearest_and_oldest_peer_authentication_wins() {
    for case in cases() {
        let written = case.written.iter().map(|(namespace, name, age, selector, mode, ports)| {
            PeerAuthentication {
                created: Some(1_000 - age),
                ports: ports.iter().copied().collect(),
                ..authentication(namespace, name, selector, *mode)
            }
        });
        let compiled = run(&cluster(written.collect(), vec![]));
        let cart = &compiled.snapshot.workloads[&"10.1.0.2".parse().unwrap()];
        let ports: Vec<_> = cart.mtls.ports.clone().into_iter().collect();
        assert_eq!((cart.mtls.default, ports), (case.default, case.ports), "{}", case.what);
        let count = compiled.diagnostics.len();
        assert_eq!(count, case.diagnostics, "{}: {:#?}", case.what, compiled.diagnostics);
    }
}

#[test]
fn one_without_a_creation_time_is_the_oldest() {
    let dated =
        PeerAuthentication { created: Some(0), ..authentication("shop", "a", "", Some(Disable)) };
    let undated = authentication("shop", "b", "", Some(Strict));
    let compiled = run(&cluster(vec![dated, undated], vec![]));
    let cart = &compiled.snapshot.workloads[&"10.1.0.2".parse().unwrap()];
    assert_eq!(cart.mtls, Strict.into());
}

#[test]
fn the_mesh_beats_the_setting_of_the_node_unless_it_is_unset() {
    let strict = Options { mtls: Strict, ..options() };
    for (mode, expected) in [(None, Strict), (Some(Permissive), Permissive)] {
        let cluster = cluster(vec![authentication(ROOT, "m", "", mode)], vec![]);
        let compiled = compile(&cluster, &strict, Generation(1));
        let cart = &compiled.snapshot.workloads[&"10.1.0.2".parse().unwrap()];
        assert_eq!(cart.mtls, expected.into());
    }
}

#[test]
fn a_workload_without_mutual_tls_is_marked_for_its_clients() {
    let disable = authentication("shop", "w", "app=cart", Some(Disable));
    let mut input = cluster(vec![disable], vec![]);
    let name = NamespacedName::new("shop", "cart");
    let flags = |input: &Cluster| {
        let entry = run(input).snapshot.tables.workloads[&addr("10.1.0.2".parse().unwrap())];
        entry.flags & !workload_flags::NATIVE
    };
    assert_eq!(flags(&input), workload_flags::LOCAL | workload_flags::PLAIN);
    input.workloads.get_mut(&name).unwrap().node = Some("b".to_owned());
    assert_eq!(flags(&input), workload_flags::PLAIN);
    let one = input.peer_authentications.values_mut().next().unwrap();
    one.ports.insert(80, Some(Strict));
    assert_eq!(flags(&input), 0, "a port of it takes part in mutual TLS");
}

/// The agent judges plaintext from meshed addresses: it must know of STRICT without any other rule.
#[test]
fn strict_alone_is_a_policy_that_the_agent_can_judge_by() {
    for (mode, there) in [(Strict, true), (Permissive, false), (Disable, false)] {
        let options = Options { mtls: mode, ..options() };
        let snapshot = compile(&cluster(vec![], vec![]), &options, Generation(1)).snapshot;
        let name = NamespacedName::new("shop", "cart");
        assert_eq!(snapshot.policies.contains_key(&name), there, "{mode:?}");
    }
}
