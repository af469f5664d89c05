//! Material for this crate's tests.

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::{
    AuthorizationPolicy, MtlsMode, NamespacedName, PolicyAction, ResourceRef, Rule, Source,
    SpiffeId, TextMatch, TrustDomain, Values,
};
use undermesh_snapshot::{
    CompiledPolicy, EndpointTarget, ServicePortRoute, Snapshot, Statement, WorkloadInfo,
};

/// An enrolled workload of another node, in the namespace `shop`, with its own service account.
pub(crate) fn workload(name: &str, addresses: &[&str]) -> WorkloadInfo {
    WorkloadInfo {
        origin: ResourceRef::namespaced("Pod", "shop", name),
        name: NamespacedName::new("shop", name),
        identity: SpiffeId::new(TrustDomain::default(), "shop", name),
        node: "elsewhere".to_owned(),
        local: false,
        direct: false,
        outbound_failure: undermesh_model::FailMode::Closed,
        wire: undermesh_model::Wire::Hbone,
        source_address: undermesh_model::SourceAddress::Translated,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        location: None,
        weight: 1,
        probe_ports: [].into(),
        mtls: MtlsMode::Strict.into(),
        labels: Arc::default(),
        workload_name: name.to_owned(),
        canonical_service: name.to_owned(),
        canonical_revision: "latest".to_owned(),
        app: name.to_owned(),
        version: String::new(),
        cluster: "Kubernetes".to_owned(),
    }
}

/// A policy that allows identities of these namespaces.
pub(crate) fn policy(namespaces: &[&str]) -> CompiledPolicy {
    let any_of = namespaces.iter().map(|name| TextMatch::parse(name)).collect();
    let namespaces = Values { any_of, none_of: Vec::new() };
    let policy = AuthorizationPolicy {
        origin: ResourceRef::namespaced("AuthorizationPolicy", "shop", "members"),
        name: NamespacedName::new("shop", "members"),
        action: PolicyAction::Allow,
        provider: None,
        selector: [].into(),
        dry_run: false,
        rules: vec![Rule {
            from: vec![Source { namespaces, ..Source::default() }],
            ..Rule::default()
        }],
    };
    let allow = vec![Arc::new(Statement::new(&policy))];
    CompiledPolicy { allow, ..CompiledPolicy::default() }
}

/// An endpoint at `address`.
pub(crate) fn endpoint(address: &str, workload: Option<&Arc<WorkloadInfo>>) -> EndpointTarget {
    EndpointTarget {
        address: address.parse().unwrap(),
        workload: workload.map(Arc::clone),
        weight: 1,
    }
}

/// Adds the service `cart` at a virtual address.
pub(crate) fn add_service(snapshot: &mut Snapshot, vip: &str, endpoints: Vec<EndpointTarget>) {
    let vip: SocketAddr = vip.parse().unwrap();
    let route = ServicePortRoute {
        origin: ResourceRef::namespaced("Service", "shop", "cart"),
        service: NamespacedName::new("shop", "cart"),
        host: "cart.shop.svc.cluster.local".to_owned(),
        port: vip.port(),
        port_name: "tcp".to_owned(),
        affinity: false,
        external: false,
        traffic: std::collections::BTreeMap::new(),
        endpoints,
    };
    snapshot.services.insert(vip, Arc::new(route));
}
