//! Whom CUSTOM policies ask.

use std::time::Duration;

use undermesh_model::{
    Authorizer, AuthorizerProtocol, Cluster, Distribution, MeshConfig, NamespacedName,
    PolicyAction, Protocol, ResourceRef, Rule, Service, ServicePort, TargetPort,
};

use super::{ROOT, authorization, cluster, run};
use crate::{NoAuthorizer, traffic::AppProtocol};

fn authorizer(name: &str, host: &str, protocol: AuthorizerProtocol) -> Authorizer {
    Authorizer {
        name: name.to_owned(),
        namespace: None,
        host: host.to_owned(),
        port: 80,
        timeout: Duration::from_secs(1),
        fail_open: false,
        status_on_error: 403,
        body: None,
        protocol,
    }
}

fn service(name: &str) -> Service {
    Service {
        origin: ResourceRef::namespaced("Service", "auth", name),
        name: NamespacedName::new("auth", name),
        cluster_ips: Vec::new(),
        headless: true,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            target_port: TargetPort::Number(8080),
            protocol: Protocol::Tcp,
            app_protocol: None,
        }],
        selector: [].into(),
        publish_not_ready: false,
        affinity: false,
        distribution: Distribution::Anywhere,
        l7: false,
    }
}

/// A policy of `shop/cart` asks this provider; the MeshConfig is in this namespace.
fn asking(provider: &str, namespace: &str) -> Cluster {
    let rules = vec![Rule::default()];
    let mut policy = authorization("shop", "ask", "app=cart", PolicyAction::Custom, rules);
    policy.provider = Some(provider.to_owned());
    let mut cluster = cluster(Vec::new(), vec![policy]);
    let name = NamespacedName::new(namespace, "default");
    let config = MeshConfig {
        origin: ResourceRef::namespaced("MeshConfig", namespace, "default"),
        name: name.clone(),
        authorizers: vec![
            authorizer("known", "judge.auth.svc.cluster.local", AuthorizerProtocol::Grpc),
            authorizer("lost", "lost.auth.svc.cluster.local", AuthorizerProtocol::Grpc),
        ],
    };
    cluster.mesh_configs.insert(name, config);
    cluster.services.insert(NamespacedName::new("auth", "judge"), service("judge"));
    cluster
}

fn codes(cluster: &Cluster) -> Vec<&'static str> {
    run(cluster).diagnostics.iter().map(|one| one.code).collect()
}

#[test]
fn a_provider_is_found_with_its_service_which_needs_no_address_of_its_own() {
    let compiled = run(&asking("known", ROOT));
    let route = compiled.snapshot.authorizers.find("shop", "known").unwrap();
    assert_eq!(route.cluster.key.host, "judge.auth.svc.cluster.local");
    assert_eq!(
        route.cluster.protocol,
        AppProtocol::Grpc,
        "gRPC needs HTTP/2, whatever the port says"
    );
    // Nobody in this namespace asks.
    let other = compiled.snapshot.authorizers.find("other", "known");
    assert_eq!(other.err(), Some(NoAuthorizer::Unknown));
}

#[test]
fn a_provider_that_does_not_exist_is_told() {
    let cluster = asking("nobody", ROOT);
    assert_eq!(codes(&cluster), ["unknown-provider", "provider-without-service"]);
    let found = run(&cluster).snapshot.authorizers.find("shop", "nobody").cloned();
    assert_eq!(found.err(), Some(NoAuthorizer::Unknown));
}

#[test]
fn a_provider_without_a_service_is_told_and_says_which() {
    let cluster = asking("lost", ROOT);
    assert_eq!(codes(&cluster), ["provider-without-service"]);
    let found = run(&cluster).snapshot.authorizers.find("shop", "lost").cloned();
    let nowhere =
        NoAuthorizer::Nowhere { host: "lost.auth.svc.cluster.local".to_owned(), port: 80 };
    assert_eq!(found.err(), Some(nowhere));
}

#[test]
fn only_the_mesh_config_of_the_root_namespace_counts() {
    let cluster = asking("known", "shop");
    assert_eq!(codes(&cluster), ["no-effect", "unknown-provider"]);
}
