//! The kinds of objects that are read; a row here and a file in `convert/` add one.

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node as KubeNode, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    node::v1::RuntimeClass,
};

use crate::{
    convert, names,
    node::{Node, TypeError},
    objects::Objects,
    report::{Report, Subject},
    security::{
        self, AuthorizationPolicy, MeshConfig, PeerAuthentication, RateLimitPolicy,
        RequestAuthentication,
    },
    traffic::{
        self, DestinationRule, ServiceEntry, VirtualService, WorkloadEntry, gateway,
        gateway::{BackendTlsPolicy, GrpcRoute, HttpRoute, ReferenceGrant, TcpRoute, TlsRoute},
    },
};

/// A kind of object that sources read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindDescription {
    /// The Kubernetes kind.
    pub kind: &'static str,
    /// The values of `apiVersion` that are read, which say the same. There is at least one.
    pub api_versions: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// The kinds that this version reads, for documentation and `--help`.
pub fn describe_kinds() -> impl Iterator<Item = KindDescription> {
    KINDS.iter().map(|kind| kind.description)
}

/// A kind, and what it takes to read it.
pub(crate) struct Kind {
    pub(crate) description: KindDescription,
    /// Whether an object may have this name.
    pub(crate) names: fn(&str) -> bool,
    /// Converts a document and adds what comes of it.
    pub(crate) read: fn(&Node, &Subject<'_>, &mut Objects, &mut Report) -> Result<(), TypeError>,
}

impl Kind {
    /// The kind of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.description.kind == name)
    }

    /// The version that is read, where there are several the latest.
    pub(crate) fn api_version(&self) -> &'static str {
        self.description.api_versions.first().copied().unwrap_or_default()
    }

    /// Whether a group is somebody else's: a Service of `serving.knative.dev` is another kind,
    /// while a Pod of `apps/v1` is a mistake.
    pub(crate) fn is_foreign(&self, api_version: &str) -> bool {
        let theirs = group(api_version);
        theirs != group(self.api_version()) && theirs.contains('.') && !theirs.ends_with(".k8s.io")
    }
}

/// The core group has no name.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

const fn cluster_scoped(kind: &'static str) -> KindDescription {
    KindDescription { kind, api_versions: &["v1"], namespaced: false }
}

const fn namespaced(kind: &'static str, api_versions: &'static [&'static str]) -> KindDescription {
    KindDescription { kind, api_versions, namespaced: true }
}

pub(crate) static KINDS: [Kind; 24] = [
    Kind {
        description: cluster_scoped("Namespace"),
        names: names::is_label,
        read: |document, subject, objects, report| {
            let namespace = document.read::<Namespace>()?;
            objects.namespaces.push(convert::namespace(&namespace, subject, report));
            Ok(())
        },
    },
    Kind {
        description: cluster_scoped("Node"),
        names: names::is_host,
        read: |document, subject, objects, report| {
            let node = document.read::<KubeNode>()?;
            objects.nodes.push(convert::node(&node, subject, report));
            Ok(())
        },
    },
    Kind {
        description: KindDescription {
            api_versions: &["node.k8s.io/v1"],
            ..cluster_scoped("RuntimeClass")
        },
        names: names::is_subdomain,
        read: |document, subject, objects, _| {
            let class = document.read::<RuntimeClass>()?;
            objects.runtime_classes.push(convert::runtime_class(class, subject));
            Ok(())
        },
    },
    Kind {
        description: namespaced("ServiceAccount", &["v1"]),
        names: names::is_subdomain,
        read: |document, subject, objects, _| {
            document.read::<ServiceAccount>()?;
            objects.service_accounts.push(convert::service_account(subject));
            Ok(())
        },
    },
    Kind {
        description: namespaced("Pod", &["v1"]),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let pod = convert::pod(&document.read::<Pod>()?, subject, report);
            objects.pods.push(pod);
            Ok(())
        },
    },
    Kind {
        description: namespaced("Service", &["v1"]),
        names: names::is_label,
        read: |document, subject, objects, report| {
            let service = document.read::<Service>()?;
            objects.services.push(convert::service(&service, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("ConfigMap", &["v1"]),
        names: names::is_subdomain,
        read: |document, subject, objects, _| {
            let map = document.read::<ConfigMap>()?;
            objects.config_maps.push(convert::config_map(&map, subject));
            Ok(())
        },
    },
    Kind {
        description: namespaced("Secret", &["v1"]),
        names: names::is_subdomain,
        read: |document, subject, objects, _| {
            objects.secrets.push(convert::secret(document, subject)?);
            Ok(())
        },
    },
    Kind {
        description: namespaced("EndpointSlice", &["discovery.k8s.io/v1"]),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let slice = document.read::<EndpointSlice>()?;
            objects.endpoint_slices.extend(convert::endpoint_slice(&slice, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("PeerAuthentication", &security::API_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<PeerAuthentication>()?;
            objects
                .peer_authentications
                .push(security::peer_authentication(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("RequestAuthentication", &security::API_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<RequestAuthentication>()?;
            objects
                .request_authentications
                .extend(security::request_authentication(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("RateLimitPolicy", &security::OWN_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<RateLimitPolicy>()?;
            objects.rate_limits.push(security::rate_limit_policy(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("AuthorizationPolicy", &security::API_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<AuthorizationPolicy>()?;
            objects
                .authorization_policies
                .extend(security::authorization_policy(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("MeshConfig", &security::MESH_CONFIG_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<MeshConfig>()?;
            objects.mesh_configs.push(security::mesh_config(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("HTTPRoute", &gateway::HTTP_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<HttpRoute>()?;
            objects.gateway_routes.extend(gateway::http_route(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("GRPCRoute", &gateway::GRPC_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<GrpcRoute>()?;
            objects.gateway_routes.extend(gateway::grpc_route(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("TCPRoute", &gateway::L4_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<TcpRoute>()?;
            objects.gateway_routes.extend(gateway::tcp_route(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("TLSRoute", &gateway::L4_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<TlsRoute>()?;
            objects.gateway_routes.extend(gateway::tls_route(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("ReferenceGrant", &gateway::GRANT_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<ReferenceGrant>()?;
            objects.reference_grants.push(gateway::reference_grant(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("BackendTLSPolicy", &gateway::TLS_POLICY_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<BackendTlsPolicy>()?;
            objects.backend_tls_policies.push(gateway::tls_policy(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("VirtualService", &traffic::ISTIO_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<VirtualService>()?;
            objects.virtual_services.extend(traffic::virtual_service(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("DestinationRule", &traffic::ISTIO_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<DestinationRule>()?;
            objects.destination_rules.push(traffic::destination_rule(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("ServiceEntry", &traffic::ISTIO_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<ServiceEntry>()?;
            objects.service_entries.push(traffic::service_entry(&read, subject, report));
            Ok(())
        },
    },
    Kind {
        description: namespaced("WorkloadEntry", &traffic::ISTIO_VERSIONS),
        names: names::is_subdomain,
        read: |document, subject, objects, report| {
            let read = document.read::<WorkloadEntry>()?;
            objects.workload_entries.extend(traffic::workload_entry(&read, subject, report));
            Ok(())
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_described_once_and_found_by_its_name() {
        let mut kinds: Vec<_> = describe_kinds().map(|kind| kind.kind).collect();
        assert!(kinds.iter().all(|kind| Kind::find(kind).is_some()));
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), KINDS.len());
    }
}
