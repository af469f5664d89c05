//! Services, workloads and policies of a snapshot, as the dashboard lists them. Made anew when it is asked; a page asks
//! once for each generation.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use serde::Serialize;
use undermesh_model::{NamespacedName, PolicyAction, ResourceRef};
use undermesh_snapshot::{
    CompiledPolicy, EndpointTarget, MtlsModes, ServicePortRoute, Snapshot, Statement, WorkloadInfo,
};

use super::rules::RuleRow;

/// Services, and workloads, that are listed; and pods of each, and endpoints of each port.
const MAX_ROWS: usize = 2_000;
const MAX_PODS: usize = 200;

/// The page. Field names are API (docs/reference/status.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mesh {
    pub(crate) generation: u64,
    services: Vec<ServiceRow>,
    workloads: Vec<WorkloadRow>,
    policies: Vec<MatchRow>,
    /// What there was no room for, in words.
    pub(crate) omitted: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    /// `Service` or `ServiceEntry`.
    kind: &'static str,
    namespace: String,
    name: String,
    host: String,
    external: bool,
    ports: Vec<PortRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PortRow {
    port: u16,
    name: String,
    addresses: BTreeSet<String>,
    endpoints: Vec<EndpointRow>,
    /// Rules look at its requests, for clients of some namespace at least.
    requests: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointRow {
    address: String,
    weight: u32,
    /// Of the pod, where it is in the mesh.
    namespace: String,
    pod: String,
    workload: String,
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadRow {
    namespace: String,
    name: String,
    identity: String,
    mtls: MtlsModes,
    pods: Vec<PodRow>,
    /// How many more there are.
    more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodRow {
    name: String,
    node: String,
    addresses: Vec<IpAddr>,
}

/// A policy, and whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchRow {
    kind: &'static str,
    namespace: String,
    name: String,
    action: &'static str,
    provider: String,
    /// `enforced` or `dry-run`: what is written. How it goes, the status page says.
    state: &'static str,
    /// Ports that its rules can match; absent for all.
    ports: Option<BTreeSet<u16>>,
    rules: Vec<RuleRow>,
    pods: Vec<MatchedPod>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchedPod {
    namespace: String,
    name: String,
    workload: String,
    node: String,
}

impl Mesh {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut omitted = Vec::new();
        let services = first(services(snapshot), "services", &mut omitted);
        let workloads = first(workloads(snapshot), "workloads", &mut omitted);
        let generation = snapshot.generation.0;
        Self { generation, services, workloads, policies: policies(snapshot), omitted }
    }

    /// Says of every pod on which node it runs, where that is not what the snapshot was compiled with.
    pub(crate) fn move_pods(&mut self, node: impl Fn(&NamespacedName) -> String) {
        let node = |namespace: &str, pod: &str| node(&NamespacedName::new(namespace, pod));
        for row in &mut self.workloads {
            row.pods.iter_mut().for_each(|pod| pod.node = node(&row.namespace, &pod.name));
        }
        for pod in self.policies.iter_mut().flat_map(|row| &mut row.pods) {
            pod.node = node(&pod.namespace, &pod.name);
        }
        let ports = self.services.iter_mut().flat_map(|row| &mut row.ports);
        for one in ports.flat_map(|port| &mut port.endpoints).filter(|one| !one.pod.is_empty()) {
            one.node = node(&one.namespace, &one.pod);
        }
    }
}

fn first<T>(mut rows: Vec<T>, what: &str, omitted: &mut Vec<String>) -> Vec<T> {
    if rows.len() > MAX_ROWS {
        omitted.push(format!("{} more {what}", rows.len() - MAX_ROWS));
        rows.truncate(MAX_ROWS);
    }
    rows
}

fn services(snapshot: &Snapshot) -> Vec<ServiceRow> {
    let mut found: BTreeMap<&ResourceRef, (&ServicePortRoute, BTreeMap<u16, PortRow>)> =
        BTreeMap::new();
    let dialled = snapshot.services.iter().map(|(at, route)| (at.ip().to_string(), route));
    let blocks = snapshot.blocks.iter().map(|(block, _, route)| (block.to_string(), route));
    for (address, route) in dialled.chain(blocks) {
        let (_, ports) = found.entry(&route.origin).or_insert_with(|| (route, BTreeMap::new()));
        let port = ports.entry(route.port).or_insert_with(|| PortRow {
            port: route.port,
            name: route.port_name.clone(),
            addresses: BTreeSet::new(),
            endpoints: Vec::new(),
            requests: !route.traffic.is_empty(),
        });
        port.addresses.insert(address);
        let room = MAX_PODS.saturating_sub(port.endpoints.len());
        let fresh = route.endpoints.iter().map(EndpointRow::new);
        let fresh: Vec<_> = fresh.filter(|one| !port.has(&one.address)).take(room).collect();
        port.endpoints.extend(fresh);
        port.endpoints.sort_by(|a, b| a.address.cmp(&b.address));
    }
    let rows = found.into_values().map(|(route, ports)| ServiceRow {
        kind: route.origin.kind,
        namespace: route.service.namespace.clone(),
        name: route.service.name.clone(),
        host: route.host.clone(),
        external: route.external,
        ports: ports.into_values().collect(),
    });
    rows.collect()
}

impl PortRow {
    fn has(&self, address: &str) -> bool {
        self.endpoints.iter().any(|one| one.address == address)
    }
}

impl EndpointRow {
    fn new(target: &EndpointTarget) -> Self {
        let pod = target.workload.as_deref();
        let text = |of: fn(&WorkloadInfo) -> &String| pod.map(of).cloned().unwrap_or_default();
        Self {
            address: target.address.to_string(),
            weight: target.weight,
            namespace: text(|pod| &pod.name.namespace),
            pod: text(|pod| &pod.name.name),
            workload: text(|pod| &pod.workload_name),
            node: text(|pod| &pod.node),
        }
    }
}

fn workloads(snapshot: &Snapshot) -> Vec<WorkloadRow> {
    let mut pods: BTreeMap<_, &WorkloadInfo> = BTreeMap::new();
    for pod in snapshot.workloads.values().chain(&snapshot.local) {
        pods.insert(&pod.name, pod);
    }
    let mut rows: BTreeMap<(&str, &str), WorkloadRow> = BTreeMap::new();
    for pod in pods.into_values() {
        let key = (pod.name.namespace.as_str(), pod.workload_name.as_str());
        let row = match rows.entry(key) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(place) => place.insert(WorkloadRow {
                namespace: pod.name.namespace.clone(),
                name: pod.workload_name.clone(),
                identity: pod.identity.to_string(),
                mtls: pod.mtls.clone(),
                pods: Vec::new(),
                more: 0,
            }),
        };
        if row.pods.len() == MAX_PODS {
            row.more += 1;
            continue;
        }
        row.pods.push(PodRow {
            name: pod.name.name.clone(),
            node: pod.node.clone(),
            addresses: pod.addresses.clone(),
        });
    }
    rows.into_values().collect()
}

fn policies(snapshot: &Snapshot) -> Vec<MatchRow> {
    let mut rows: BTreeMap<ResourceRef, MatchRow> = BTreeMap::new();
    for pod in &snapshot.local {
        let Some(policy) = snapshot.policies.get(&pod.name) else { continue };
        let mut about: BTreeSet<&ResourceRef> = BTreeSet::new();
        for statement in policy.statements() {
            about.insert(&statement.origin);
            let fresh = || MatchRow::of_statement(statement);
            rows.entry(statement.origin.clone()).or_insert_with(fresh);
        }
        for token in &policy.tokens {
            about.insert(&token.origin);
            let fresh = || MatchRow::new(&token.origin, "", None);
            rows.entry(token.origin.clone()).or_insert_with(fresh);
        }
        for limit in &policy.limits {
            if about.insert(&limit.origin) {
                let fresh = || MatchRow::of_limits(policy, &limit.origin);
                rows.entry(limit.origin.clone()).or_insert_with(fresh);
            }
        }
        for origin in about {
            let Some(row) = rows.get_mut(origin) else { continue };
            row.pods.push(MatchedPod {
                namespace: pod.name.namespace.clone(),
                name: pod.name.name.clone(),
                workload: pod.workload_name.clone(),
                node: pod.node.clone(),
            });
        }
    }
    rows.into_values().collect()
}

impl MatchRow {
    fn new(origin: &ResourceRef, action: &'static str, rules: Option<Vec<RuleRow>>) -> Self {
        // What has no rules is about everything; what has an empty list of them, about nothing.
        let ports = match &rules {
            None => None,
            Some(rules) => rules
                .iter()
                .map(|rule| rule.ports.clone())
                .collect::<Option<Vec<_>>>()
                .map(|all| all.into_iter().flatten().collect()),
        };
        Self {
            kind: origin.kind,
            namespace: origin.namespace.clone(),
            name: origin.name.clone(),
            action,
            provider: String::new(),
            state: "enforced",
            ports,
            rules: rules.unwrap_or_default(),
            pods: Vec::new(),
        }
    }

    fn of_statement(statement: &Statement) -> Self {
        let action = match statement.action {
            PolicyAction::Allow => "ALLOW",
            PolicyAction::Deny => "DENY",
            PolicyAction::Audit => "AUDIT",
            PolicyAction::Custom => "CUSTOM",
        };
        let rules = statement.rules.iter().map(|rule| RuleRow::new(rule, None));
        Self {
            provider: statement.provider.clone().unwrap_or_default(),
            state: if statement.dry_run { "dry-run" } else { "enforced" },
            ..Self::new(&statement.origin, action, Some(rules.collect()))
        }
    }

    fn of_limits(policy: &CompiledPolicy, origin: &ResourceRef) -> Self {
        let own = || policy.limits.iter().filter(|limit| limit.origin == *origin);
        let rules = own().map(|limit| RuleRow::new(&limit.rule, Some(&limit.name)));
        let shadow = own().any(|limit| limit.shadow);
        Self {
            state: if shadow { "dry-run" } else { "enforced" },
            ..Self::new(origin, "LIMIT", Some(rules.collect()))
        }
    }
}
