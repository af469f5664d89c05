//! A cluster as an API server has it: nodes, namespaces in the mesh, services, and pods as their endpoints.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use undermesh_tests::apiserver::ApiServer;

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Cluster {
    pub(in crate::bench) nodes: usize,
    pub(in crate::bench) namespaces: usize,
    pub(in crate::bench) services: usize,
    /// Of each service.
    pub(in crate::bench) endpoints: usize,
}

impl Cluster {
    pub(in crate::bench) fn node(number: usize) -> String {
        format!("node-{number}")
    }

    fn namespace(&self, service: usize) -> String {
        format!("team-{}", service % self.namespaces)
    }

    /// Puts everything there.
    pub(in crate::bench) fn put(&self, api: &ApiServer) -> Result<()> {
        for namespace in 0..self.namespaces {
            api.put(&json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": self.namespace(namespace), "labels": {"istio.io/dataplane-mode": "ambient"},
                },
            }))?;
        }
        for number in 0..self.nodes {
            let [_, _, high, low] = u32::try_from(number)?.to_be_bytes();
            api.put(&json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {
                    "name": Self::node(number),
                    "labels": {"topology.kubernetes.io/zone": format!("zone-{}", number % 3)},
                },
                "status": {"addresses": [{"type": "InternalIP", "address": format!("172.20.{high}.{low}")}]},
            }))?;
        }
        for service in 0..self.services {
            api.put(&self.service(service)?)?;
            for endpoint in 0..self.endpoints {
                api.put(&self.pod(service, endpoint)?)?;
            }
            api.put(&self.slice(service, None)?)?;
        }
        Ok(())
    }

    /// Makes one endpoint ready or not, another each time.
    pub(in crate::bench) fn change_an_endpoint(
        &self,
        api: &ApiServer,
        change: usize,
    ) -> Result<()> {
        self.change_an_endpoint_of(api, change * 37 % self.services)
    }

    /// The same of one service.
    pub(in crate::bench) fn change_an_endpoint_of(
        &self,
        api: &ApiServer,
        service: usize,
    ) -> Result<()> {
        let (name, namespace) = (format!("service-{service}-x1"), self.namespace(service));
        let slice = api.get("discovery.k8s.io/v1", "EndpointSlice", &namespace, &name);
        let slice = slice.context("a slice is gone")?;
        let was_ready = slice["endpoints"][0]["conditions"]["ready"] == true;
        api.put(&self.slice(service, was_ready.then_some(0))?).map(drop)
    }

    fn service(&self, service: usize) -> Result<Value> {
        let [_, _, high, low] = u32::try_from(service)?.to_be_bytes();
        Ok(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": format!("service-{service}"), "namespace": self.namespace(service),
                "labels": {"app": format!("service-{service}"), "team": self.namespace(service)},
            },
            "spec": {
                "clusterIP": format!("10.96.{high}.{low}"), "clusterIPs": [format!("10.96.{high}.{low}")],
                "selector": {"app": format!("service-{service}")}, "type": "ClusterIP",
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        }))
    }

    fn address(&self, service: usize, endpoint: usize) -> Result<String> {
        let [_, high, middle, low] =
            u32::try_from(service * self.endpoints + endpoint + 1)?.to_be_bytes();
        Ok(format!("10.{}.{middle}.{low}", 100 + u16::from(high)))
    }

    fn pod_name(service: usize, endpoint: usize) -> String {
        format!("service-{service}-7d9c5b6f4-{endpoint:05}")
    }

    fn place(&self, service: usize, endpoint: usize) -> String {
        Self::node((service * self.endpoints + endpoint) % self.nodes)
    }

    fn pod(&self, service: usize, endpoint: usize) -> Result<Value> {
        let address = self.address(service, endpoint)?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": Self::pod_name(service, endpoint), "namespace": self.namespace(service),
                "labels": {
                    "app": format!("service-{service}"), "pod-template-hash": "7d9c5b6f4",
                    "team": self.namespace(service), "version": "v1",
                },
            },
            "spec": {
                "nodeName": self.place(service, endpoint),
                "containers": [{
                    "name": "app", "image": "registry.example/app:1.2.3",
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
                    "env": [{"name": "TEAM", "value": self.namespace(service)}],
                }],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [
                    {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
                ],
            },
        }))
    }

    fn slice(&self, service: usize, not_ready: Option<usize>) -> Result<Value> {
        let endpoints: Result<Vec<Value>> = (0..self.endpoints)
            .map(|endpoint| {
                let ready = not_ready != Some(endpoint);
                Ok(json!({
                    "addresses": [self.address(service, endpoint)?],
                    "conditions": {"ready": ready, "serving": ready, "terminating": false},
                    "nodeName": self.place(service, endpoint), "zone": "zone-0",
                    "targetRef": {
                        "kind": "Pod", "namespace": self.namespace(service),
                        "name": Self::pod_name(service, endpoint),
                    },
                }))
            })
            .collect();
        Ok(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("service-{service}-x1"), "namespace": self.namespace(service),
                "labels": {"kubernetes.io/service-name": format!("service-{service}")},
            },
            "endpoints": endpoints?, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }))
    }
}
