//! Which ports of a pod the kubelet dials.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// The ports of all probes and lifecycle hooks of all containers. What names no port that exists
/// is left to the kubelet to complain about.
pub(super) fn ports(spec: &PodSpec) -> BTreeSet<u16> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
        .flat_map(|container| {
            handlers(container).filter_map(|dialled| dialled.number(container)).collect::<Vec<_>>()
        })
        .collect()
}

/// A port as a probe has it.
enum Dialled<'a> {
    Written(&'a IntOrString),
    Number(i32),
}

impl Dialled<'_> {
    /// A name is looked up among the ports of the same container (Kubernetes, `resolveContainerPort`).
    fn number(&self, container: &Container) -> Option<u16> {
        let number = match self {
            Self::Number(number) | Self::Written(IntOrString::Int(number)) => *number,
            Self::Written(IntOrString::String(text)) => match text.parse() {
                Ok(number) => number,
                Err(_) => {
                    let mut declared = container.ports.iter().flatten();
                    declared.find(|port| port.name.as_ref() == Some(text))?.container_port
                }
            },
        };
        u16::try_from(number).ok().filter(|port| *port != 0)
    }
}

fn handlers(container: &Container) -> impl Iterator<Item = Dialled<'_>> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let hooks = container
        .lifecycle
        .iter()
        .flat_map(|lifecycle| lifecycle.post_start.iter().chain(&lifecycle.pre_stop));
    probes.into_iter().flatten().flat_map(of_probe).chain(hooks.flat_map(of_hook))
}

fn of_probe(probe: &Probe) -> impl Iterator<Item = Dialled<'_>> {
    let http = probe.http_get.iter().filter_map(of_http);
    let tcp = probe.tcp_socket.iter().filter(|tcp| is_own(tcp.host.as_ref()));
    let grpc = probe.grpc.iter().map(|grpc| Dialled::Number(grpc.port));
    http.chain(tcp.map(|tcp| Dialled::Written(&tcp.port))).chain(grpc)
}

fn of_hook(hook: &LifecycleHandler) -> impl Iterator<Item = Dialled<'_>> {
    let tcp = hook.tcp_socket.iter().filter(|tcp| is_own(tcp.host.as_ref()));
    hook.http_get.iter().filter_map(of_http).chain(tcp.map(|tcp| Dialled::Written(&tcp.port)))
}

fn of_http(http: &HTTPGetAction) -> Option<Dialled<'_>> {
    is_own(http.host.as_ref()).then_some(Dialled::Written(&http.port))
}

/// A probe of another host goes to that host.
fn is_own(host: Option<&String>) -> bool {
    host.is_none_or(String::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(yaml: &str) -> Vec<u16> {
        let spec: PodSpec = serde_saphyr::from_str(yaml).unwrap();
        ports(&spec).into_iter().collect()
    }

    #[test]
    fn every_kind_of_probe_and_hook_counts_and_names_are_looked_up() {
        let spec = "
initContainers:
- name: proxy
  restartPolicy: Always
  startupProbe: {httpGet: {port: 1000}}
containers:
- name: web
  ports: [{name: http, containerPort: 8080}]
  livenessProbe: {httpGet: {path: /live, port: http}}
  readinessProbe: {tcpSocket: {port: 1001}}
  startupProbe: {grpc: {port: 1002}}
  lifecycle:
    preStop: {httpGet: {port: '1003'}}
- name: exec
  livenessProbe: {exec: {command: [\"true\"]}}
";
        assert_eq!(of(spec), [1000, 1001, 1002, 1003, 8080]);
    }

    #[test]
    fn other_hosts_and_ports_that_are_none_do_not_count() {
        let spec = "
containers:
- name: web
  livenessProbe: {httpGet: {host: example.com, port: 80}}
  readinessProbe: {tcpSocket: {port: metrics}}
  startupProbe: {httpGet: {port: 0}}
";
        assert_eq!(of(spec), [0; 0]);
    }
}
