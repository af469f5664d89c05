//! Programs of others at the cgroup where ours attach, above it and below it.

use std::collections::BTreeMap;

use undermesh_datapath::{Neighbour, Relation, Sharing, neighbours};

use super::{catalogue::Kind, finding::Finding, situation::Situation};

/// How socket load balancers call the programs that replace service addresses: those of Cilium
/// (`bpf_sock.c`) and of Calico (`connect_balancer*.c`).
const SOCKET_LBS: [(&str, &str); 5] = [
    ("cil_sock", "Cilium"),
    ("sock4_", "Cilium"),
    ("sock6_", "Cilium"),
    ("calico_connect", "Calico"),
    ("cali_ctlb", "Calico"),
];

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let Some(cgroup) = &situation.outline.cgroup else { return Vec::new() };
    summarise(&neighbours(cgroup))
}

/// One finding for each program of each cgroup, whatever hooks it is at: a load balancer has ten.
fn summarise(neighbours: &[Neighbour]) -> Vec<Finding> {
    let mut groups: BTreeMap<(&'static str, String), (Kind, Vec<String>)> = BTreeMap::new();
    for neighbour in neighbours {
        let kind = classify(neighbour);
        let key = (kind.id(), neighbour.cgroup.display().to_string());
        let program = format!("{} {} ({})", neighbour.program_id, neighbour.name, neighbour.hook);
        groups.entry(key).or_insert_with(|| (kind, Vec::new())).1.push(program);
    }
    let finding = |((_, cgroup), (kind, programs)): (_, (Kind, Vec<String>))| {
        Finding::new(kind, cgroup, format!("programs {}", programs.join(", ")))
    };
    groups.into_iter().map(finding).collect()
}

fn classify(neighbour: &Neighbour) -> Kind {
    let Neighbour { sharing, relation, .. } = neighbour;
    let runs_first = matches!(relation, Relation::Below | Relation::Same { first: true });
    match (sharing, relation) {
        (Sharing::Exclusive, Relation::Above | Relation::Same { .. }) => Kind::ProgramExclusive,
        // At one and the same cgroup, all programs have to be attached in the same way.
        (Sharing::Overridable, Relation::Same { .. }) => Kind::ProgramExclusive,
        (Sharing::Overridable, Relation::Above) => Kind::ProgramOverridden,
        _ if !is_socket_lb(neighbour) => Kind::ProgramBeside,
        _ if runs_first => Kind::SocketLbFirst,
        _ => Kind::SocketLbAfter,
    }
}

fn is_socket_lb(neighbour: &Neighbour) -> bool {
    neighbour.hook.contains("connect")
        && SOCKET_LBS.iter().any(|(prefix, _)| neighbour.name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(name: &str, sharing: Sharing, relation: Relation) -> Neighbour {
        let (hook, cgroup) = ("cgroup/connect4", "/c".into());
        Neighbour { hook, cgroup, program_id: 7, name: name.to_owned(), sharing, relation }
    }

    #[test]
    fn where_and_how_a_program_is_attached_decides_what_it_means() {
        use Relation::{Above, Below, Same};
        use Sharing::{Exclusive, Overridable, Shared};
        let first = |first| Same { first };
        for (name, sharing, relation, expected) in [
            ("x", Exclusive, Above, Kind::ProgramExclusive),
            ("x", Exclusive, first(false), Kind::ProgramExclusive),
            ("x", Exclusive, Below, Kind::ProgramBeside),
            ("x", Overridable, Above, Kind::ProgramOverridden),
            ("x", Overridable, first(true), Kind::ProgramExclusive),
            ("x", Shared, Above, Kind::ProgramBeside),
            ("cil_sock4_conne", Shared, Above, Kind::SocketLbAfter),
            ("cil_sock4_conne", Shared, first(true), Kind::SocketLbFirst),
            ("cil_sock4_conne", Shared, first(false), Kind::SocketLbAfter),
            ("calico_connect_", Shared, Below, Kind::SocketLbFirst),
        ] {
            let found = classify(&neighbour(name, sharing, relation));
            assert_eq!(found, expected, "{name} {sharing:?} {relation:?}");
        }
    }
}
