//! What users may write, in a file, the environment or flags, before any of it is checked.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;
use undermesh_model::MtlsMode;
use undermesh_snapshot::SameNode;

use super::{
    gate::StartupGate,
    outbound::{OutboundFailure, OutboundTrafficPolicy},
    source::SourceKind,
    tracing::TracingProtocol,
};

/// Every setting, all optional: the union of file, environment and flags.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    /// Name of this node, as Pods name it in spec.nodeName [default: $NODE_NAME].
    #[arg(long, env = "UNDERMESH_NODE", value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Directory of Kubernetes manifests, reloaded whenever it changes.
    #[arg(long, env = "UNDERMESH_MANIFESTS", value_name = "DIR")]
    pub(super) manifests: Option<PathBuf>,
    /// Where configuration comes from [default: manifests].
    #[arg(long, env = "UNDERMESH_SOURCE", value_name = "KIND")]
    pub(super) source: Option<SourceKind>,
    /// How to reach the API server, a kubeconfig file [default: by the account of the agent's pod].
    #[arg(long, env = "UNDERMESH_KUBECONFIG", value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Controllers that configuration comes from: https://HOST:PORT, one or several [default: caAddress].
    #[arg(
        long,
        env = "UNDERMESH_CONTROLLER_ADDRESSES",
        value_name = "URLS",
        value_delimiter = ',',
        num_args = 0..
    )]
    pub(super) controller_addresses: Option<Vec<String>>,
    /// Name that the controllers' certificates have to be for [default: caName, else the host of each].
    #[arg(long, env = "UNDERMESH_CONTROLLER_NAME", value_name = "NAME")]
    pub(super) controller_name: Option<String>,
    /// Directory where the last state of the API server or the controller is kept, or `none` [default:
    /// /var/lib/undermesh/cache].
    #[arg(long, env = "UNDERMESH_CACHE_DIR", value_name = "DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Directory of the certificate authority (`undermesh ca init`) [default:
    /// /var/lib/undermesh/ca].
    #[arg(long, env = "UNDERMESH_CA_DIR", value_name = "DIR")]
    pub(super) ca_dir: Option<PathBuf>,
    /// Authority that certificates come from instead of a directory, the controller or istiod:
    /// https://HOST:PORT.
    #[arg(long, env = "UNDERMESH_CA_ADDRESS", value_name = "URL")]
    pub(super) ca_address: Option<String>,
    /// Name that the authority's certificate has to be for [default: the host of caAddress].
    #[arg(long, env = "UNDERMESH_CA_NAME", value_name = "NAME")]
    pub(super) ca_name: Option<String>,
    /// PEM file of the roots that all certificates go back to, the authority's own too [default:
    /// /var/run/secrets/undermesh/roots/root-cert.pem].
    #[arg(long, env = "UNDERMESH_CA_ROOTS", value_name = "FILE")]
    pub(super) ca_roots: Option<PathBuf>,
    /// File of the service account's token that is shown to the authority [default:
    /// /var/run/secrets/undermesh/token/token].
    #[arg(long, env = "UNDERMESH_CA_TOKEN", value_name = "FILE")]
    pub(super) ca_token: Option<PathBuf>,
    /// Trust domain of all identities [default: cluster.local].
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", value_name = "DOMAIN")]
    pub(super) trust_domain: Option<String>,
    /// Name of the cluster, for metrics and logs [default: Kubernetes].
    #[arg(long, env = "UNDERMESH_CLUSTER", value_name = "NAME")]
    pub(super) cluster: Option<String>,
    /// Cgroup to attach to; a relative path starts at the cgroup2 mount [default: the kubelet's
    /// cgroup where there is one, else the whole hierarchy].
    #[arg(long, env = "UNDERMESH_CGROUP", value_name = "PATH")]
    pub(super) cgroup: Option<PathBuf>,
    /// Directory on a BPF file system for pinned links and maps [default: /sys/fs/bpf/undermesh].
    #[arg(long, env = "UNDERMESH_PIN_DIR", value_name = "DIR")]
    pub(super) pin_dir: Option<PathBuf>,
    /// What enrolled pods accept where no PeerAuthentication of the mesh says it [default:
    /// PERMISSIVE].
    #[arg(long, env = "UNDERMESH_MTLS", value_name = "MODE", ignore_case = true)]
    pub(super) mtls: Option<Mtls>,
    /// Namespace whose policies are about the whole mesh [default: istio-system].
    #[arg(long, env = "UNDERMESH_ROOT_NAMESPACE", value_name = "NAME")]
    pub(super) root_namespace: Option<String>,
    /// What becomes of meshed connections while the agent is down [default: closed].
    #[arg(long, env = "UNDERMESH_OUTBOUND_FAILURE", value_name = "MODE")]
    pub(super) outbound_failure: Option<OutboundFailure>,
    /// What becomes of connections to destinations that nobody has registered [default: ALLOW_ANY].
    #[arg(
        long,
        env = "UNDERMESH_OUTBOUND_TRAFFIC_POLICY",
        value_name = "MODE",
        ignore_case = true
    )]
    pub(super) outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// How connections between two pods of this node travel [default: direct].
    #[arg(long, env = "UNDERMESH_SAME_NODE", value_name = "MODE")]
    pub(super) same_node: Option<SameNodeValue>,
    /// Where connections come from that the agent delivers to applications [default: translated].
    #[arg(long, env = "UNDERMESH_SOURCE_ADDRESS", value_name = "MODE")]
    pub(super) source_address: Option<SourceAddressValue>,
    /// The cgroup that the kubelet runs in, whose probes pass every policy; `auto` for that of the
    /// process that listens at port 10250, `none` for no kubelet [default: auto].
    #[arg(long, env = "UNDERMESH_KUBELET_CGROUP", value_name = "PATH")]
    pub(super) kubelet_cgroup: Option<PathBuf>,
    /// What becomes of connections to the mesh of pods that are to be in it and are not programmed yet
    /// [default: refuse].
    #[arg(long, env = "UNDERMESH_STARTUP_GATE", value_name = "MODE")]
    pub(super) startup_gate: Option<StartupGate>,
    /// How long the gate holds up a cgroup that nobody has described [default: 1s].
    #[arg(long, env = "UNDERMESH_STARTUP_GATE_TIMEOUT", value_name = "DURATION")]
    pub(super) startup_gate_timeout: Option<Span>,
    /// Namespaces whose pods are never held up [default: kube-system].
    #[arg(
        long,
        env = "UNDERMESH_STARTUP_GATE_EXEMPT",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 0..
    )]
    pub(super) startup_gate_exempt: Option<Vec<String>>,
    /// The cgroup below which pods run, or `none` [default: the kubelet's, where there is one].
    #[arg(long, env = "UNDERMESH_POD_CGROUP", value_name = "PATH")]
    pub(super) pod_cgroup: Option<PathBuf>,
    /// Lifetime of workload certificates; renewed after half of it [default: 24h].
    #[arg(long, env = "UNDERMESH_SVID_LIFETIME", value_name = "DURATION")]
    pub(super) svid_lifetime: Option<Span>,
    /// Where the admin interface listens; loopback only [default: 127.0.0.1:15000].
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", value_name = "ADDRESS")]
    pub(super) admin_address: Option<SocketAddr>,
    /// Where Prometheus finds the metrics [default: [::]:15020].
    #[arg(long, env = "UNDERMESH_METRICS_ADDRESS", value_name = "ADDRESS")]
    pub(super) metrics_address: Option<SocketAddr>,
    /// Where readiness is answered, at /healthz/ready [default: [::]:15021].
    #[arg(long, env = "UNDERMESH_READINESS_ADDRESS", value_name = "ADDRESS")]
    pub(super) readiness_address: Option<SocketAddr>,
    /// Where connections are logged: `stdout`, `off`, or a file [default: stdout].
    #[arg(long, env = "UNDERMESH_ACCESS_LOG", value_name = "TARGET")]
    pub(super) access_log: Option<String>,
    /// Where it is audited what policies refuse: `stdout`, `off`, or a file [default: off].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG", value_name = "TARGET")]
    pub(super) audit_log: Option<String>,
    /// Size at which another file of the audit log is begun, in bytes [default: 104857600].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG_MAX_BYTES", value_name = "BYTES")]
    pub(super) audit_log_max_bytes: Option<u64>,
    /// Older files of the audit log that are kept [default: 5].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG_KEEP", value_name = "FILES")]
    pub(super) audit_log_keep: Option<u32>,
    /// Flow records kept in memory for `undermesh flows`, at most 65536; 0 for none [default: 4096].
    #[arg(long, env = "UNDERMESH_FLOW_BUFFER", value_name = "RECORDS")]
    pub(super) flow_buffer: Option<usize>,
    /// Log filter: a level, or directives such as `info,undermesh_proxy=debug` [default: info].
    #[arg(long, env = "UNDERMESH_LOG_LEVEL", value_name = "FILTER")]
    pub(super) log_level: Option<String>,
    /// Log format [default: text].
    #[arg(long, env = "UNDERMESH_LOG_FORMAT", value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
    /// Let the eBPF programs write into the log (needs log level debug) [default: false].
    #[arg(long, env = "UNDERMESH_KERNEL_LOG", num_args = 0..=1, default_missing_value = "true")]
    pub(super) kernel_log: Option<bool>,
    /// How long a dial may take, handshake included [default: 5s].
    #[arg(long, env = "UNDERMESH_CONNECT_TIMEOUT", value_name = "DURATION")]
    pub(super) connect_timeout: Option<Span>,
    /// How long an unused tunnel is kept [default: 5m].
    #[arg(long, env = "UNDERMESH_TUNNEL_IDLE_TIMEOUT", value_name = "DURATION")]
    pub(super) tunnel_idle_timeout: Option<Span>,
    /// How long an unused connection of the native wire is kept [default: 60s].
    #[arg(long, env = "UNDERMESH_NATIVE_IDLE_TIMEOUT", value_name = "DURATION")]
    pub(super) native_idle_timeout: Option<Span>,
    /// Unused connections of the native wire that a pod keeps to one destination [default: 64].
    #[arg(long, env = "UNDERMESH_NATIVE_MAX_IDLE", value_name = "N")]
    pub(super) native_max_idle: Option<usize>,
    /// Connections of the native wire that are made in advance to a busy destination [default: 8].
    #[arg(long, env = "UNDERMESH_NATIVE_MAX_READY", value_name = "N")]
    pub(super) native_max_ready: Option<usize>,
    /// DNS servers, as address and port, that hosts of ServiceEntries are resolved with [default: those of
    /// /etc/resolv.conf].
    #[arg(
        long,
        env = "UNDERMESH_DNS_SERVERS",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        num_args = 0..
    )]
    pub(super) dns_servers: Option<Vec<SocketAddr>>,
    /// Receiver of spans of requests, `http://HOST:PORT` or `https://HOST:PORT` [default: none, and no tracing].
    #[arg(long, env = "UNDERMESH_TRACING_ENDPOINT", value_name = "URL")]
    pub(super) tracing_endpoint: Option<String>,
    /// What the receiver of spans speaks [default: grpc].
    #[arg(long, env = "UNDERMESH_TRACING_PROTOCOL", value_name = "PROTOCOL")]
    pub(super) tracing_protocol: Option<TracingProtocol>,
    /// Traces that are recorded, in per cent, where no caller has decided [default: 1].
    #[arg(long, env = "UNDERMESH_TRACING_SAMPLING", value_name = "PERCENT")]
    pub(super) tracing_sampling: Option<f64>,
    /// Longest path that a span tells, in bytes [default: 256].
    #[arg(long, env = "UNDERMESH_TRACING_MAX_PATH_LENGTH", value_name = "BYTES")]
    pub(super) tracing_max_path_length: Option<usize>,
    /// Attributes of all spans, as NAME=literal:VALUE, NAME=header:HEADER or NAME=environment:VARIABLE.
    #[arg(
        long,
        env = "UNDERMESH_TRACING_TAGS",
        value_name = "TAGS",
        value_delimiter = ',',
        num_args = 0..
    )]
    pub(super) tracing_tags: Option<Vec<String>>,
    /// Roots that the receiver's certificate is checked with, a PEM file [default: those of the system].
    #[arg(long, env = "UNDERMESH_TRACING_CA", value_name = "FILE")]
    pub(super) tracing_ca: Option<PathBuf>,
    /// How long live connections may go on after SIGTERM [default: 30s].
    #[arg(long, env = "UNDERMESH_DRAIN_TIMEOUT", value_name = "DURATION")]
    pub(super) drain_timeout: Option<Span>,
    /// How long live connections may go on after another agent has taken over [default: 12h].
    #[arg(long, env = "UNDERMESH_HANDOVER_TIMEOUT", value_name = "DURATION")]
    pub(super) handover_timeout: Option<Span>,
    /// Whether an agent that has handed over ends with its last connection; `false` where something would
    /// start it again: it waits for SIGTERM then [default: true].
    #[arg(long, env = "UNDERMESH_HANDOVER_EXIT", value_name = "BOOL")]
    pub(super) handover_exit: Option<bool>,
    /// Longest time in which nothing comes of a request's body that has a length; 0s for any [default: 5m].
    #[arg(long, env = "UNDERMESH_BODY_IDLE_TIMEOUT", value_name = "DURATION")]
    pub(super) body_idle_timeout: Option<Span>,
    /// How long a client of HTTP/1.1 may have a connection open without a request; 0s for any [default: 1h].
    #[arg(long, env = "UNDERMESH_HTTP_IDLE_TIMEOUT", value_name = "DURATION")]
    pub(super) http_idle_timeout: Option<Span>,
    /// Largest head of a request, in bytes, 4096 to 1048576 [default: 61440].
    #[arg(long, env = "UNDERMESH_MAX_REQUEST_HEAD_BYTES", value_name = "BYTES")]
    pub(super) max_request_head_bytes: Option<usize>,
    /// Most headers of a request, 16 to 1000 [default: 100].
    #[arg(long, env = "UNDERMESH_MAX_REQUEST_HEADERS", value_name = "N")]
    pub(super) max_request_headers: Option<usize>,
    /// Bytes a second that have to come of a request's body that has a length, while it is waited for; 0 for any
    /// [default: 0].
    #[arg(long, env = "UNDERMESH_BODY_MIN_RATE", value_name = "BYTES")]
    pub(super) body_min_rate: Option<u64>,
    /// The time over which that is measured, 1s to 1h [default: 30s].
    #[arg(long, env = "UNDERMESH_BODY_RATE_WINDOW", value_name = "DURATION")]
    pub(super) body_rate_window: Option<Span>,
    /// How long a client of HTTP/2 may have a connection open without a request; 0s for any [default: 1h].
    #[arg(long, env = "UNDERMESH_HTTP2_IDLE_TIMEOUT", value_name = "DURATION")]
    pub(super) http2_idle_timeout: Option<Span>,
    /// No pod takes more than its share of the threads that carry connections while others want theirs
    /// [default: false].
    #[arg(long, env = "UNDERMESH_FAIRNESS", value_name = "BOOL")]
    pub(super) fairness: Option<bool>,
    /// Resident memory, in bytes, that counts as all there is, beside the limits of cgroups [default: none].
    #[arg(long, env = "UNDERMESH_OVERLOAD_MEMORY", value_name = "BYTES")]
    pub(super) overload_memory: Option<u64>,
    /// How late the threads that carry connections may be [default: 1s].
    #[arg(long, env = "UNDERMESH_OVERLOAD_DELAY", value_name = "DURATION")]
    pub(super) overload_delay: Option<Span>,
    /// Threads that carry connections [default: one per processor].
    #[arg(long, env = "UNDERMESH_WORKERS", value_name = "N")]
    pub(super) workers: Option<usize>,
    /// Size of the pod map [default: 1024].
    #[arg(long, env = "UNDERMESH_MAX_PODS", value_name = "ENTRIES")]
    pub(super) max_pods: Option<u32>,
    /// Size of the workload map [default: 65536].
    #[arg(long, env = "UNDERMESH_MAX_WORKLOADS", value_name = "ENTRIES")]
    pub(super) max_workloads: Option<u32>,
    /// Size of the policy map [default: 65536].
    #[arg(long, env = "UNDERMESH_MAX_POLICY_ENTRIES", value_name = "ENTRIES")]
    pub(super) max_policy_entries: Option<u32>,
    /// Size of the service map [default: 16384].
    #[arg(long, env = "UNDERMESH_MAX_SERVICES", value_name = "ENTRIES")]
    pub(super) max_services: Option<u32>,
    /// Size of the backend map [default: 131072].
    #[arg(long, env = "UNDERMESH_MAX_BACKENDS", value_name = "ENTRIES")]
    pub(super) max_backends: Option<u32>,
    /// Size of the maps of ports of this node's pods [default: 16384].
    #[arg(long, env = "UNDERMESH_MAX_POD_PORTS", value_name = "ENTRIES")]
    pub(super) max_pod_ports: Option<u32>,
    /// Size of the connection maps [default: 131072].
    #[arg(long, env = "UNDERMESH_MAX_CONNECTIONS", value_name = "ENTRIES")]
    pub(super) max_connections: Option<u32>,
    /// Size of the event buffer in bytes, a power of two [default: 1048576].
    #[arg(long, env = "UNDERMESH_EVENT_BUFFER_BYTES", value_name = "BYTES")]
    pub(super) event_buffer_bytes: Option<u32>,
}

/// PERMISSIVE or STRICT, as PeerAuthentication writes them.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPERCASE")]
pub(crate) enum Mtls {
    Permissive,
    Strict,
}

impl From<Mtls> for MtlsMode {
    fn from(mode: Mtls) -> Self {
        match mode {
            Mtls::Permissive => Self::Permissive,
            Mtls::Strict => Self::Strict,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SameNodeValue {
    /// Inside the kernel.
    Direct,
    /// Through the proxy and a tunnel.
    Encrypt,
}

impl From<SameNodeValue> for SameNode {
    fn from(value: SameNodeValue) -> Self {
        match value {
            SameNodeValue::Direct => Self::Direct,
            SameNodeValue::Encrypt => Self::Encrypt,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SourceAddressValue {
    /// A loopback address; `accept` and `getpeername` show the client.
    Translated,
    /// The client's own address.
    Transparent,
}

/// Text for people, JSON for collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A length of time: `500ms`, `30s`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("{error}; write a duration such as 30s, 5m or 24h"))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

macro_rules! prefer {
    ($first:expr, $second:expr; $($field:ident)*) => {
        RawConfig { $($field: $first.$field.or($second.$field),)* }
    };
}

impl RawConfig {
    /// The port of the admin pages, where one was named.
    pub(crate) fn admin_port(&self) -> Option<u16> {
        self.admin_address.map(|address| address.port())
    }

    /// The kubeconfig that was named.
    pub(crate) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Reads a configuration file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        serde_yaml_ng::from_str(&text)
            .with_context(|| format!("configuration file {} is not usable", path.display()))
    }

    /// These settings, and those of `other` where these say nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        prefer!(self, other; node manifests source kubeconfig controller_addresses controller_name cache_dir ca_dir ca_address ca_name ca_roots ca_token trust_domain cluster cgroup pin_dir mtls
            root_namespace outbound_failure outbound_traffic_policy same_node source_address svid_lifetime admin_address
            metrics_address readiness_address access_log audit_log audit_log_max_bytes audit_log_keep flow_buffer log_level log_format kernel_log connect_timeout
            tunnel_idle_timeout native_idle_timeout native_max_idle native_max_ready dns_servers drain_timeout handover_timeout handover_exit body_idle_timeout http_idle_timeout
            max_request_head_bytes max_request_headers body_min_rate body_rate_window http2_idle_timeout fairness overload_memory overload_delay workers max_pods max_workloads
            max_policy_entries max_services max_backends max_connections max_pod_ports
            event_buffer_bytes kubelet_cgroup startup_gate startup_gate_timeout startup_gate_exempt
            pod_cgroup tracing_endpoint tracing_protocol tracing_sampling tracing_max_path_length
            tracing_tags tracing_ca)
    }
}
