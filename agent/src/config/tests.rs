//! What beats what, and what is refused.

use clap::Parser;
use undermesh_proxy::Sampling;

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: RawConfig,
}

fn flags(args: &[&str]) -> RawConfig {
    Flags::try_parse_from([&["test"], args].concat()).unwrap().settings
}

fn file(yaml: &str) -> RawConfig {
    serde_yaml_ng::from_str(yaml).unwrap()
}

const MINIMAL: &str = "node: a\nmanifests: /m\n";

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let merged = flags(&["--node", "b", "--svid-lifetime", "1h"])
        .or(file("node: a\nmanifests: /m\nsvidLifetime: 2h\nmtls: STRICT\n"));
    let config = merged.validate().unwrap();
    assert_eq!((config.node.as_str(), config.svid_lifetime.as_secs()), ("b", 3600));
    assert_eq!(config.mtls, MtlsMode::Strict);
    assert_eq!(config.cluster, "Kubernetes");
    assert_eq!(config.outbound_policy, OutboundPolicy::AllowAny);
    let only = file(&format!("{MINIMAL}outboundTrafficPolicy: REGISTRY_ONLY\n"));
    assert_eq!(only.validate().unwrap().outbound_policy, OutboundPolicy::RegistryOnly);
}

#[test]
fn unusable_settings_say_which_and_what_to_do() {
    for (yaml, part) in [
        ("", "pass --node"),
        ("node: a", "pass --manifests"),
        ("kubeconfig: /k", "kubeconfig has no effect without `source: kubernetes`"),
        ("cacheDir: /c", "cacheDir has no effect without `source: kubernetes`"),
        ("source: kubernetes", "manifests has no effect with `source: kubernetes`"),
        ("adminAddress: 0.0.0.0:15000", "adminAddress 0.0.0.0:15000 is not a loopback"),
        ("svidLifetime: 1s", "svidLifetime is shorter than 10s"),
        ("flowBuffer: 65537", "flowBuffer must be at most 65536"),
        ("tracingSampling: 5", "tracingSampling has no effect without tracingEndpoint"),
        ("tracingEndpoint: 'otel:4317'", "is not of the form http://"),
        (
            "tracingEndpoint: 'http://a'\ntracingSampling: 101",
            "tracingSampling must be between 0 and 100",
        ),
        ("tracingEndpoint: 'http://a'\ntracingTags: [a]", "NAME=literal:VALUE"),
        ("maxRequestHeadBytes: 4095", "maxRequestHeadBytes must be between 4096 and 1048576"),
        ("maxRequestHeaders: 1001", "maxRequestHeaders must be between 16 and 1000"),
        ("bodyMinRate: 1\nbodyRateWindow: 0s", "bodyRateWindow must be between 1s and 1h"),
        ("bodyRateWindow: 10s", "bodyRateWindow has no effect without bodyMinRate"),
        ("caAddress: 'http://a'", "is not of the form https://HOST"),
        ("caAddress: 'https://a/b'", "is not of the form https://HOST"),
        ("caAddress: 'https://a'\ncaDir: /b", "caDir and caAddress are both set"),
        ("caToken: /a", "caToken has no effect without caAddress"),
        ("source: controller", "manifests has no effect with `source: controller`"),
        ("controllerAddresses: ['https://a']", "controllerAddresses has no effect without"),
        ("controllerName: a", "controllerName has no effect without `source: controller`"),
        ("node: a\nsource: controller\n", "needs to know where controllers are"),
        (
            "node: a\nsource: controller\ncontrollerAddresses: ['http://a']\n",
            "controllerAddresses: \"http://a\" is not of the form https://HOST",
        ),
        ("auditLogMaxBytes: 1", "auditLogMaxBytes must be at least 4096"),
        ("maxPods: 0", "maxPods must be between"),
        ("eventBufferBytes: 5000", "power of two"),
        ("trustDomain: 'A b'", "trustDomain"),
        ("podCgroup: /proc", "is not below the attach point"),
        ("cgroup: /proc", "is not below the cgroup2 mount"),
    ] {
        let raw = if yaml.starts_with("node") || yaml.is_empty() {
            file(if yaml.is_empty() { "{}" } else { yaml })
        } else {
            file(&format!("{MINIMAL}{yaml}\n"))
        };
        let error = format!("{:#}", raw.validate().unwrap_err());
        assert!(error.contains(part), "{yaml:?} gave {error:?}");
    }
}

#[test]
fn unknown_keys_and_bad_values_are_refused_with_their_line() {
    for (yaml, part) in [
        ("node: a\npindir: /x\n", "unknown field `pindir`"),
        ("node: a\nsvidLifetime: soon\n", "write a duration such as"),
        ("node: a\nmtls: DISABLE\n", "unknown variant `DISABLE`"),
        ("node: a\noutboundTrafficPolicy: ALLOW\n", "unknown variant `ALLOW`"),
    ] {
        let error = serde_yaml_ng::from_str::<RawConfig>(yaml).unwrap_err().to_string();
        assert!(error.contains(part), "{yaml:?} gave {error:?}");
    }
}

#[test]
fn an_authority_has_istios_port_and_its_hosts_name_where_nothing_else_is_said() {
    let of = |yaml: &str| {
        let config = file(&format!("{MINIMAL}{yaml}\n")).validate().unwrap();
        config.ca_remote.map(|remote| (remote.host, remote.port, remote.name))
    };
    let some = |host: &str, port, name: &str| Some((host.to_owned(), port, name.to_owned()));
    assert_eq!(of(""), None);
    assert_eq!(of("caAddress: https://ca.mesh.svc"), some("ca.mesh.svc", 15012, "ca.mesh.svc"));
    let yaml = "caAddress: 'https://[fd00::1]:1'\ncaName: ca.mesh.svc";
    assert_eq!(of(yaml), some("fd00::1", 1, "ca.mesh.svc"));
}

#[test]
fn tracing_is_off_without_a_receiver_and_takes_istios_share_with_one() {
    assert!(file(MINIMAL).validate().unwrap().tracing.is_none());
    let on = file(&format!("{MINIMAL}tracingEndpoint: 'http://otel.observability:4317'\n"));
    let on = on.validate().unwrap().tracing.unwrap();
    assert_eq!(on.proxy.sampling, Sampling::percent(1.0).unwrap());
    assert_eq!((on.proxy.max_path_length, on.proxy.tags.len()), (256, 0));
    let more = "tracingEndpoint: https://otel/v1/traces\ntracingProtocol: http\ntracingSampling: 12.5\n\
                tracingMaxPathLength: 64\ntracingTags: ['zone=literal:a', 'tenant=header:x-tenant']\n";
    let more = file(&format!("{MINIMAL}{more}")).validate().unwrap().tracing.unwrap();
    assert_eq!(more.proxy.sampling, Sampling::percent(12.5).unwrap());
    assert_eq!((more.proxy.max_path_length, more.proxy.tags.len()), (64, 2));
}

/// The file that the DaemonSet's pods are given, and the ports that it names.
#[test]
fn the_deployed_configuration_is_valid_and_its_ports_are_those_that_are_probed() {
    const MANIFEST: &str = include_str!("../../../deploy/kubernetes/undermesh.yaml");
    let objects: Vec<serde_yaml_ng::Value> = serde_yaml_ng::Deserializer::from_str(MANIFEST)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    let the = |kind: &str, name: &str| {
        let is_it =
            |it: &&serde_yaml_ng::Value| it["kind"] == kind && it["metadata"]["name"] == name;
        objects.iter().find(is_it).unwrap()
    };
    let text = the("ConfigMap", "undermesh-agent")["data"]["agent.yaml"].as_str().unwrap();
    let config = flags(&["--node", "a"]).or(file(text)).validate().unwrap();
    let cache_dir = Some("/var/lib/undermesh/cache".into());
    assert_eq!(config.source, SourceConfig::Kubernetes { kubeconfig: None, cache_dir });
    assert!(!config.handover_exit, "the kubelet starts again what ends");
    let pod = &the("DaemonSet", "undermesh-agent")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let ready = u64::from(config.readiness_address.port());
    assert_eq!(container["readinessProbe"]["httpGet"]["port"].as_u64(), Some(ready));
    assert_eq!(container["livenessProbe"]["tcpSocket"]["port"].as_u64(), Some(ready));
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > config.drain_timeout.as_secs());

    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let ca = config.ca_remote.unwrap();
    for file in [&ca.roots, &ca.token] {
        let directory = file.parent().unwrap().to_str().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == directory), "{directory}");
    }
    let service = &the("Service", "undermesh-controller");
    assert_eq!(ca.host, "undermesh-controller.undermesh-system.svc");
    let ports = service["spec"]["ports"].as_sequence().unwrap();
    assert!(ports.iter().any(|port| port["port"].as_u64() == Some(u64::from(ca.port))));
}

#[test]
fn controllers_are_where_certificates_come_from_unless_something_else_is_said() {
    let of = |yaml: &str| {
        let config = file(&format!("node: a\nsource: controller\n{yaml}\n")).validate().unwrap();
        let SourceConfig::Controller { controllers, .. } = config.source else { panic!("{yaml}") };
        let said = |one: &RemoteConfig| format!("{}:{} {}", one.host, one.port, one.name);
        controllers.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(of("caAddress: https://c.mesh.svc\ncaName: c"), ["c.mesh.svc:15012 c"]);
    let two = "controllerAddresses: ['https://one:1', 'https://two']\ncaToken: /t\ncaRoots: /r";
    assert_eq!(of(two), ["one:1 one", "two:15012 two"]);
    assert_eq!(of(&format!("{two}\ncontrollerName: c")), ["one:1 c", "two:15012 c"]);
}
