//! Enrolled workloads of all nodes.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use undermesh_model::{
    Cluster, Diagnostic, Enrolment, NamespacedName, Severity, SpiffeId, Workload,
};

use crate::{
    CompiledPolicy, MtlsModes, Options, PodPlace, SameNode, WorkloadInfo, addr,
    policy::{Authorizations, PeerAuthentications, report},
};

/// The mesh's workloads, by address and by node.
#[derive(Default)]
pub(super) struct Workloads {
    pub(super) by_address: HashMap<IpAddr, Arc<WorkloadInfo>>,
    pub(super) local: Vec<Arc<WorkloadInfo>>,
    pub(super) policies: HashMap<NamespacedName, Arc<CompiledPolicy>>,
}

pub(super) fn compile(
    cluster: &Cluster,
    options: &Options,
    diagnostics: &mut Vec<Diagnostic>,
) -> Workloads {
    let mut workloads = Workloads::default();
    let mut modes = PeerAuthentications::new(cluster, options, diagnostics);
    let authorizations = Authorizations::new(cluster, &options.root_namespace);
    let running = cluster.workloads.values().filter(|workload| {
        workload.enrolment.is_enrolled() && !workload.terminated && !workload.host_network
    });
    for workload in running {
        // Pending pods have neither yet; they come back with the next state.
        let Some(node) = workload.node.clone().filter(|_| !workload.addresses.is_empty()) else {
            continue;
        };
        let local = node == options.node;
        if local && workload.location.is_none() {
            diagnostics.push(without_location(workload));
        }
        let modes = modes.modes(workload);
        let info = Arc::new(info(workload, node, modes, options));
        for address in &info.addresses {
            add_address(&mut workloads.by_address, *address, &info, diagnostics);
        }
        if local {
            let policy = authorizations.of(workload, info.mtls.clone());
            report(&info, &policy, diagnostics);
            if !policy.is_trivial() {
                workloads.policies.insert(info.name.clone(), Arc::new(policy));
            }
            workloads.local.push(info);
        }
    }
    modes.report(diagnostics);
    workloads
}

/// Where the pods of this node run.
pub(super) fn places(cluster: &Cluster, options: &Options) -> Vec<PodPlace> {
    let here = cluster
        .workloads
        .values()
        .filter(|workload| workload.node.as_ref() == Some(&options.node) && !workload.terminated);
    let place = |workload: &Workload| {
        Some(PodPlace {
            name: workload.name.clone(),
            location: workload.location.clone()?,
            enrolled: workload.enrolment.is_enrolled() && !workload.host_network,
        })
    };
    here.filter_map(place).collect()
}

/// The pods of this node that labels enrol and that cannot be enrolled.
pub(super) fn impossible(cluster: &Cluster, options: &Options) -> Vec<(NamespacedName, String)> {
    let here = cluster.workloads.values();
    let here = here.filter(|workload| workload.node.as_ref() == Some(&options.node));
    here.filter_map(|workload| match &workload.enrolment {
        Enrolment::Impossible(why) => Some((workload.name.clone(), why.clone())),
        _ => None,
    })
    .collect()
}

fn add_address(
    by_address: &mut HashMap<IpAddr, Arc<WorkloadInfo>>,
    address: IpAddr,
    info: &Arc<WorkloadInfo>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if addr(address).is_never_meshed() {
        diagnostics.push(unusable_address(info, address, "is loopback, link-local or multicast"));
        return;
    }
    match by_address.get(&address) {
        Some(owner) => {
            let message = format!("already belongs to {}", owner.origin);
            diagnostics.push(unusable_address(info, address, &message));
        }
        None => {
            by_address.insert(address, Arc::clone(info));
        }
    }
}

fn info(workload: &Workload, node: String, mtls: MtlsModes, options: &Options) -> WorkloadInfo {
    let local = node == options.node;
    let label = |name: &str| workload.labels.get(name).cloned().unwrap_or_default();
    let mut addresses = workload.addresses.clone();
    addresses.sort_unstable_by_key(|address| (address.is_ipv6(), *address));
    WorkloadInfo {
        origin: workload.origin.clone(),
        name: workload.name.clone(),
        identity: SpiffeId::new(
            options.trust_domain.clone(),
            workload.name.namespace.clone(),
            workload.service_account.clone(),
        ),
        node,
        local,
        direct: local && options.same_node == SameNode::Direct,
        outbound_failure: workload.outbound_failure.unwrap_or(options.outbound_failure),
        source_address: workload.source_address.unwrap_or(options.source_address),
        wire: workload.wire,
        addresses,
        location: workload.location.clone().filter(|_| local),
        weight: workload.weight.max(1),
        probe_ports: workload.probe_ports.iter().copied().filter(|_| local).collect(),
        mtls,
        labels: Arc::new(workload.labels.clone()),
        workload_name: workload.workload_name.clone(),
        canonical_service: workload.canonical_service().to_owned(),
        canonical_revision: workload.canonical_revision().to_owned(),
        app: label("app"),
        version: label("version"),
        cluster: options.cluster.clone(),
    }
}

fn without_location(workload: &Workload) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "pod-without-location",
        object: Some(workload.origin.clone()),
        position: None,
        message: "is enrolled and runs on this node, but nothing says in which network namespace"
            .to_owned(),
        remedy: "set the annotation undermesh.io/netns or undermesh.io/cgroup".to_owned(),
    }
}

fn unusable_address(info: &WorkloadInfo, address: IpAddr, why: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "unusable-address",
        object: Some(info.origin.clone()),
        position: None,
        message: format!("its address {address} {why}"),
        remedy: "correct status.podIPs".to_owned(),
    }
}
