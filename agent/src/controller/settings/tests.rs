//! Settings, as users write them.

use super::*;

fn file(yaml: &str) -> RawSettings {
    serde_yaml_ng::from_str(yaml).unwrap()
}

#[test]
fn defaults_are_those_of_the_deployment() {
    let settings = file("replica: a").validate().unwrap();
    assert_eq!(settings.namespace, "undermesh-system");
    assert_eq!(settings.audiences, ["undermesh-ca", "istio-ca"]);
    assert_eq!(settings.server_names[0], "undermesh-controller.undermesh-system.svc");
    let account = ("undermesh-system".to_owned(), "undermesh-agent".to_owned());
    assert_eq!(settings.issuance.node_accounts, [account].into());
    assert_eq!(settings.issuance.lifetime, Duration::from_secs(DAY));
    assert_eq!(settings.terms.lease, Duration::from_secs(15));
    assert!(settings.dashboard_address.unwrap().ip().is_loopback());
    assert_eq!(file("dashboardAddress: off").validate().unwrap().dashboard_address, None);
}

#[test]
fn the_deployed_configuration_is_valid_and_its_ports_are_those_of_the_pods() {
    const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/undermesh.yaml");
    let objects: Vec<serde_yaml_ng::Value> = serde_yaml_ng::Deserializer::from_str(MANIFEST)
        .map(|document| Deserialize::deserialize(document).unwrap())
        .collect();
    let the = |kind: &str| {
        let is_it = |it: &&serde_yaml_ng::Value| {
            it["kind"] == kind && it["metadata"]["name"] == "undermesh-controller"
        };
        objects.iter().find(is_it).unwrap()
    };
    let text = the("ConfigMap")["data"]["controller.yaml"].as_str().unwrap();
    let settings = file("replica: a").or(file(text)).validate().unwrap();
    assert_eq!(the("ConfigMap")["metadata"]["namespace"], settings.namespace.as_str());
    assert_eq!(settings.webhook_name, "undermesh-controller");
    assert_eq!(settings.ca_config_map, "undermesh-ca-roots");
    let ports = &the("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"];
    let ports = ports.as_sequence().unwrap().iter();
    let found: BTreeSet<_> = ports.map(|port| port["containerPort"].as_u64().unwrap()).collect();
    let wanted = [
        settings.grpc_address,
        settings.webhook_address,
        settings.metrics_address,
        settings.readiness_address,
    ];
    assert_eq!(found, wanted.map(|address| u64::from(address.port())).into());
}

#[test]
fn unusable_settings_say_which_and_what_to_do() {
    for (yaml, part) in [
        ("svidLifetime: 5s", "svidLifetime is shorter than 10s"),
        ("svidLifetime: 3h\nmaxSvidLifetime: 2h", "svidLifetime is longer than"),
        ("maxSvidLifetime: 91days", "maxSvidLifetime is longer than 90days"),
        ("intermediateLifetime: 3days", "twice maxSvidLifetime"),
        ("rootLifetime: 30days", "intermediateLifetime is longer than rootLifetime"),
        ("rootLifetime: 20days\nintermediateLifetime: 4days", "a fifth of it has to be as long as"),
        ("nodeAccounts: [agent]", "is not of the form NAMESPACE/NAME"),
        ("tokenAudiences: []", "tokenAudiences has to name at least one"),
        ("caDir: /a\ncaSecret: b", "caDir and caSecret are both set"),
        ("leaseRenewDeadline: 15s", "shorter than leaseDuration"),
        ("leaseRetryPeriod: 6s", "half of leaseRenewDeadline"),
        ("leaseDuration: 1500ms", "whole seconds"),
        ("namespace: ../kube-system", "is no name of an object"),
        ("csrRate: 0", "at least 1"),
        ("dashboardAddress: here", "neither ADDRESS:PORT nor off"),
        ("dashboardHosts: ['mesh.example:1']", "without port"),
        ("auditLogMaxBytes: 1", "at least 4096"),
    ] {
        let error = format!("{:#}", file(yaml).validate().unwrap_err());
        assert!(error.contains(part), "{yaml:?} gave {error:?}");
    }
    assert!(serde_yaml_ng::from_str::<RawSettings>("manifests: /m").is_err());
}
