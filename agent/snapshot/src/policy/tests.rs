//! Policies and connections in, decisions and tables out.

mod authorizers;
mod equivalence;
mod limits;
mod modes;
mod reference;
mod requests;
mod rules;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use undermesh_model::{
    AuthorizationPolicy, Cluster, Enrolment, Generation, MtlsMode, NamespacedName,
    PeerAuthentication, PodLocation, PolicyAction, ResourceRef, Rule, Wire, Workload,
};

use crate::{Compiled, CompiledPolicy, Options, Snapshot, compile};

pub(super) const ROOT: &str = "istio-system";

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A pod of node `a` whose service account and label `app` are its name.
fn workload(namespace: &str, name: &str, address: &str) -> Workload {
    Workload {
        origin: ResourceRef::namespaced("Pod", namespace, name),
        name: NamespacedName::new(namespace, name),
        service_account: name.to_owned(),
        node: Some("a".to_owned()),
        addresses: vec![address.parse().unwrap()],
        labels: labels(&format!("app={name}")),
        enrolment: Enrolment::Enrolled("test".to_owned()),
        location: Some(PodLocation::Netns("/run/netns/x".into())),
        outbound_failure: None,
        wire: Wire::default(),
        source_address: None,
        weight: 1,
        probe_ports: [].into(),
        host_network: false,
        terminated: false,
        workload_name: name.to_owned(),
    }
}

fn authorization(
    namespace: &str,
    name: &str,
    selector: &str,
    action: PolicyAction,
    rules: Vec<Rule>,
) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: ResourceRef::namespaced("AuthorizationPolicy", namespace, name),
        name: NamespacedName::new(namespace, name),
        action,
        provider: None,
        selector: labels(selector),
        dry_run: false,
        rules,
    }
}

fn authentication(
    namespace: &str,
    name: &str,
    selector: &str,
    mode: Option<MtlsMode>,
) -> PeerAuthentication {
    PeerAuthentication {
        origin: ResourceRef::namespaced("PeerAuthentication", namespace, name),
        name: NamespacedName::new(namespace, name),
        created: None,
        selector: labels(selector),
        mode,
        ports: BTreeMap::new(),
    }
}

/// `shop/cart`, the pod that is guarded, and two neighbours.
fn cluster(
    authentications: Vec<PeerAuthentication>,
    authorizations: Vec<AuthorizationPolicy>,
) -> Cluster {
    let pods = [
        workload("shop", "cart", "10.1.0.2"),
        workload("shop", "web", "10.1.0.3"),
        workload("other", "web", "10.2.0.4"),
    ];
    Cluster {
        workloads: pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect(),
        peer_authentications: authentications.into_iter().map(|p| (p.name.clone(), p)).collect(),
        authorization_policies: authorizations.into_iter().map(|p| (p.name.clone(), p)).collect(),
        ..Cluster::default()
    }
}

fn options() -> Options {
    Options { node: "a".to_owned(), root_namespace: ROOT.to_owned(), ..Options::default() }
}

fn run(cluster: &Cluster) -> Compiled {
    compile(cluster, &options(), Generation(1))
}

fn policy(snapshot: &Snapshot, pod: &str) -> Arc<CompiledPolicy> {
    let name = NamespacedName::new("shop", pod);
    snapshot.policies.get(&name).cloned().unwrap_or_default()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
