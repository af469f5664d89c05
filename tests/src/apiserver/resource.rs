//! Resources that the server knows: what discovery says of them, and how their objects are kept.

/// A resource: a kind at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core.
    pub group: String,
    /// Versions that are served, the preferred one first. They differ in nothing but their name.
    pub versions: Vec<String>,
    /// The kind of its objects.
    pub kind: String,
    /// The name in addresses.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether `status` is written at an address of its own.
    pub status: bool,
    /// Comes with the server, not of a CustomResourceDefinition: items of lists then leave out kind and
    /// apiVersion, and strategic merge patches are taken.
    pub built_in: bool,
    /// Fields that a field selector may name, beside `metadata.name` and `metadata.namespace`.
    pub fields: Vec<String>,
}

impl Resource {
    /// A resource of a CustomResourceDefinition, in namespaces, with a status of its own.
    pub fn custom(group: &str, versions: &[&str], kind: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            versions: versions.iter().map(|&version| version.to_owned()).collect(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced: true,
            status: true,
            built_in: false,
            fields: Vec::new(),
        }
    }

    fn built_in(group: &str, kind: &str, plural: &str, namespaced: bool, fields: &[&str]) -> Self {
        Self {
            namespaced,
            built_in: true,
            fields: fields.iter().map(|&field| field.to_owned()).collect(),
            ..Self::custom(group, &["v1"], kind, plural)
        }
    }

    /// `group/version`, as objects have it.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// The version that is preferred.
    pub fn preferred(&self) -> &str {
        self.versions.first().map_or("v1", String::as_str)
    }

    /// `plural.group`, as errors and CustomResourceDefinitions have it.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// What every cluster has, as far as the mesh has to do with it.
    pub fn core() -> Vec<Self> {
        let pod = [
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
        ];
        [
            ("", "Namespace", "namespaces", false, &["status.phase"][..]),
            ("", "Node", "nodes", false, &["spec.unschedulable"]),
            ("", "Pod", "pods", true, &pod),
            ("", "Service", "services", true, &["spec.clusterIP", "spec.type"]),
            ("", "ServiceAccount", "serviceaccounts", true, &[]),
            ("", "Secret", "secrets", true, &["type"]),
            ("", "ConfigMap", "configmaps", true, &[]),
            ("", "Event", "events", true, &["involvedObject.uid", "reason", "type"]),
            ("apps", "Deployment", "deployments", true, &[]),
            ("apps", "DaemonSet", "daemonsets", true, &[]),
            ("discovery.k8s.io", "EndpointSlice", "endpointslices", true, &[]),
            ("coordination.k8s.io", "Lease", "leases", true, &[]),
            ("networking.k8s.io", "NetworkPolicy", "networkpolicies", true, &[]),
            ("node.k8s.io", "RuntimeClass", "runtimeclasses", false, &[]),
            ("policy", "PodDisruptionBudget", "poddisruptionbudgets", true, &[]),
            (
                "apiextensions.k8s.io",
                "CustomResourceDefinition",
                "customresourcedefinitions",
                false,
                &[],
            ),
            (
                "admissionregistration.k8s.io",
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
                false,
                &[],
            ),
            (
                "admissionregistration.k8s.io",
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
                false,
                &[],
            ),
            ("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", false, &[]),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", false, &[]),
            ("rbac.authorization.k8s.io", "Role", "roles", true, &[]),
            ("rbac.authorization.k8s.io", "RoleBinding", "rolebindings", true, &[]),
        ]
        .into_iter()
        .map(|(group, kind, plural, namespaced, fields)| {
            Self::built_in(group, kind, plural, namespaced, fields)
        })
        .collect()
    }

    /// Istio's resources.
    pub fn istio() -> Vec<Self> {
        let traffic: &[&str] = &["v1", "v1beta1", "v1alpha3"];
        let security: &[&str] = &["v1", "v1beta1"];
        [
            ("networking.istio.io", traffic, "VirtualService", "virtualservices"),
            ("networking.istio.io", traffic, "DestinationRule", "destinationrules"),
            ("networking.istio.io", traffic, "ServiceEntry", "serviceentries"),
            ("networking.istio.io", traffic, "WorkloadEntry", "workloadentries"),
            ("networking.istio.io", traffic, "Sidecar", "sidecars"),
            ("security.istio.io", security, "PeerAuthentication", "peerauthentications"),
            ("security.istio.io", security, "RequestAuthentication", "requestauthentications"),
            ("security.istio.io", security, "AuthorizationPolicy", "authorizationpolicies"),
        ]
        .into_iter()
        .map(|(group, versions, kind, plural)| Self::custom(group, versions, kind, plural))
        .collect()
    }

    /// The Gateway API, its experimental channel included.
    pub fn gateway_api() -> Vec<Self> {
        const GROUP: &str = "gateway.networking.k8s.io";
        let mut found: Vec<Self> = [
            (&["v1", "v1beta1"][..], "HTTPRoute", "httproutes"),
            (&["v1", "v1beta1", "v1alpha2"], "GRPCRoute", "grpcroutes"),
            (&["v1", "v1alpha3", "v1alpha2"], "TCPRoute", "tcproutes"),
            (&["v1", "v1alpha3", "v1alpha2"], "TLSRoute", "tlsroutes"),
            (&["v1", "v1beta1"], "ReferenceGrant", "referencegrants"),
            (&["v1", "v1alpha3"], "BackendTLSPolicy", "backendtlspolicies"),
            (&["v1", "v1beta1"], "Gateway", "gateways"),
        ]
        .into_iter()
        .map(|(versions, kind, plural)| Self::custom(GROUP, versions, kind, plural))
        .collect();
        let class = Self::custom(GROUP, &["v1", "v1beta1"], "GatewayClass", "gatewayclasses");
        found.push(Self { namespaced: false, ..class });
        found
    }

    /// This mesh's own resources.
    pub fn undermesh() -> Vec<Self> {
        [("RateLimitPolicy", "ratelimitpolicies"), ("MeshConfig", "meshconfigs")]
            .map(|(kind, plural)| Self::custom("undermesh.io", &["v1alpha1"], kind, plural))
            .into()
    }
}
