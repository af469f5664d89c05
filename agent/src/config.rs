//! Configuration: what users may write ([`RawConfig`]), and what the agent works from ([`Config`]).

mod gate;
mod outbound;
mod tracing;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{kubelet::KubeletCgroup, overload::OverloadConfig};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use undermesh_datapath::{CgroupRoot, MapSizes, default_attach_point};
use undermesh_model::{FailMode, MtlsMode, SourceAddress, TrustDomain};
use undermesh_proxy::NativeConfig;
use undermesh_snapshot::{OutboundPolicy, SameNode};

pub(crate) use gate::GateConfig;
use gate::StartupGate;
use outbound::{OutboundFailure, OutboundTrafficPolicy};
pub(crate) use tracing::TracingConfig;
use tracing::TracingProtocol;

use crate::cli::{DEFAULT_ADMIN, DEFAULT_PIN_DIR};

/// Directory of the certificate authority where nothing else is said.
const DEFAULT_CA_DIR: &str = "/var/lib/undermesh/ca";
/// Address of the metrics where nothing else is said.
const DEFAULT_METRICS: &str = "[::]:15020";
/// Address of readiness where nothing else is said.
const DEFAULT_READINESS: &str = "[::]:15021";

/// Flow records that are kept where nothing else is said.
const DEFAULT_FLOW_BUFFER: usize = 4096;
/// Most flow records that may be kept; each is a line of the access log, below 2 KiB as a rule.
const MAX_FLOW_BUFFER: usize = 65_536;

/// Every setting, all optional: the union of file, environment and flags.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    /// Name of this node, as Pods name it in spec.nodeName.
    #[arg(long, env = "UNDERMESH_NODE", value_name = "NAME")]
    node: Option<String>,
    /// Directory of Kubernetes manifests, reloaded whenever it changes.
    #[arg(long, env = "UNDERMESH_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Directory of the certificate authority (`undermesh ca init`) [default:
    /// /var/lib/undermesh/ca].
    #[arg(long, env = "UNDERMESH_CA_DIR", value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Trust domain of all identities [default: cluster.local].
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Name of the cluster, for metrics and logs [default: Kubernetes].
    #[arg(long, env = "UNDERMESH_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// Cgroup to attach to; a relative path starts at the cgroup2 mount [default: the kubelet's
    /// cgroup where there is one, else the whole hierarchy].
    #[arg(long, env = "UNDERMESH_CGROUP", value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Directory on a BPF file system for pinned links and maps [default: /sys/fs/bpf/undermesh].
    #[arg(long, env = "UNDERMESH_PIN_DIR", value_name = "DIR")]
    pin_dir: Option<PathBuf>,
    /// What enrolled pods accept where no PeerAuthentication of the mesh says it [default:
    /// PERMISSIVE].
    #[arg(long, env = "UNDERMESH_MTLS", value_name = "MODE", ignore_case = true)]
    mtls: Option<Mtls>,
    /// Namespace whose policies are about the whole mesh [default: istio-system].
    #[arg(long, env = "UNDERMESH_ROOT_NAMESPACE", value_name = "NAME")]
    root_namespace: Option<String>,
    /// What becomes of meshed connections while the agent is down [default: closed].
    #[arg(long, env = "UNDERMESH_OUTBOUND_FAILURE", value_name = "MODE")]
    outbound_failure: Option<OutboundFailure>,
    /// What becomes of connections to destinations that nobody has registered [default: ALLOW_ANY].
    #[arg(
        long,
        env = "UNDERMESH_OUTBOUND_TRAFFIC_POLICY",
        value_name = "MODE",
        ignore_case = true
    )]
    outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    /// How connections between two pods of this node travel [default: direct].
    #[arg(long, env = "UNDERMESH_SAME_NODE", value_name = "MODE")]
    same_node: Option<SameNodeValue>,
    /// Where connections come from that the agent delivers to applications [default: translated].
    #[arg(long, env = "UNDERMESH_SOURCE_ADDRESS", value_name = "MODE")]
    source_address: Option<SourceAddressValue>,
    /// The cgroup that the kubelet runs in, whose probes pass every policy; `auto` for that of the
    /// process that listens at port 10250, `none` for no kubelet [default: auto].
    #[arg(long, env = "UNDERMESH_KUBELET_CGROUP", value_name = "PATH")]
    kubelet_cgroup: Option<PathBuf>,
    /// What becomes of connections to the mesh of pods that are to be in it and are not programmed yet
    /// [default: refuse].
    #[arg(long, env = "UNDERMESH_STARTUP_GATE", value_name = "MODE")]
    startup_gate: Option<StartupGate>,
    /// How long the gate holds up a cgroup that nobody has described [default: 1s].
    #[arg(long, env = "UNDERMESH_STARTUP_GATE_TIMEOUT", value_name = "DURATION")]
    startup_gate_timeout: Option<Span>,
    /// Namespaces whose pods are never held up [default: kube-system].
    #[arg(
        long,
        env = "UNDERMESH_STARTUP_GATE_EXEMPT",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 0..
    )]
    startup_gate_exempt: Option<Vec<String>>,
    /// The cgroup below which pods run, or `none` [default: the kubelet's, where there is one].
    #[arg(long, env = "UNDERMESH_POD_CGROUP", value_name = "PATH")]
    pod_cgroup: Option<PathBuf>,
    /// Lifetime of workload certificates; renewed after half of it [default: 24h].
    #[arg(long, env = "UNDERMESH_SVID_LIFETIME", value_name = "DURATION")]
    svid_lifetime: Option<Span>,
    /// Where the admin interface listens; loopback only [default: 127.0.0.1:15000].
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", value_name = "ADDRESS")]
    admin_address: Option<SocketAddr>,
    /// Where Prometheus finds the metrics [default: [::]:15020].
    #[arg(long, env = "UNDERMESH_METRICS_ADDRESS", value_name = "ADDRESS")]
    metrics_address: Option<SocketAddr>,
    /// Where readiness is answered, at /healthz/ready [default: [::]:15021].
    #[arg(long, env = "UNDERMESH_READINESS_ADDRESS", value_name = "ADDRESS")]
    readiness_address: Option<SocketAddr>,
    /// Where connections are logged: `stdout`, `off`, or a file [default: stdout].
    #[arg(long, env = "UNDERMESH_ACCESS_LOG", value_name = "TARGET")]
    access_log: Option<String>,
    /// Flow records kept in memory for `undermesh flows`, at most 65536; 0 for none [default: 4096].
    #[arg(long, env = "UNDERMESH_FLOW_BUFFER", value_name = "RECORDS")]
    flow_buffer: Option<usize>,
    /// Log filter: a level, or directives such as `info,undermesh_proxy=debug` [default: info].
    #[arg(long, env = "UNDERMESH_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
    /// Log format [default: text].
    #[arg(long, env = "UNDERMESH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Let the eBPF programs write into the log (needs log level debug) [default: false].
    #[arg(long, env = "UNDERMESH_KERNEL_LOG", num_args = 0..=1, default_missing_value = "true")]
    kernel_log: Option<bool>,
    /// How long a dial may take, handshake included [default: 5s].
    #[arg(long, env = "UNDERMESH_CONNECT_TIMEOUT", value_name = "DURATION")]
    connect_timeout: Option<Span>,
    /// How long an unused tunnel is kept [default: 5m].
    #[arg(long, env = "UNDERMESH_TUNNEL_IDLE_TIMEOUT", value_name = "DURATION")]
    tunnel_idle_timeout: Option<Span>,
    /// How long an unused connection of the native wire is kept [default: 60s].
    #[arg(long, env = "UNDERMESH_NATIVE_IDLE_TIMEOUT", value_name = "DURATION")]
    native_idle_timeout: Option<Span>,
    /// Unused connections of the native wire that a pod keeps to one destination [default: 64].
    #[arg(long, env = "UNDERMESH_NATIVE_MAX_IDLE", value_name = "N")]
    native_max_idle: Option<usize>,
    /// Connections of the native wire that are made in advance to a busy destination [default: 8].
    #[arg(long, env = "UNDERMESH_NATIVE_MAX_READY", value_name = "N")]
    native_max_ready: Option<usize>,
    /// DNS servers, as address and port, that hosts of ServiceEntries are resolved with [default: those of
    /// /etc/resolv.conf].
    #[arg(
        long,
        env = "UNDERMESH_DNS_SERVERS",
        value_name = "ADDRESSES",
        value_delimiter = ',',
        num_args = 0..
    )]
    dns_servers: Option<Vec<SocketAddr>>,
    /// Receiver of spans of requests, `http://HOST:PORT` or `https://HOST:PORT` [default: none, and no tracing].
    #[arg(long, env = "UNDERMESH_TRACING_ENDPOINT", value_name = "URL")]
    tracing_endpoint: Option<String>,
    /// What the receiver of spans speaks [default: grpc].
    #[arg(long, env = "UNDERMESH_TRACING_PROTOCOL", value_name = "PROTOCOL")]
    tracing_protocol: Option<TracingProtocol>,
    /// Traces that are recorded, in per cent, where no caller has decided [default: 1].
    #[arg(long, env = "UNDERMESH_TRACING_SAMPLING", value_name = "PERCENT")]
    tracing_sampling: Option<f64>,
    /// Longest path that a span tells, in bytes [default: 256].
    #[arg(long, env = "UNDERMESH_TRACING_MAX_PATH_LENGTH", value_name = "BYTES")]
    tracing_max_path_length: Option<usize>,
    /// Attributes of all spans, as NAME=literal:VALUE, NAME=header:HEADER or NAME=environment:VARIABLE.
    #[arg(
        long,
        env = "UNDERMESH_TRACING_TAGS",
        value_name = "TAGS",
        value_delimiter = ',',
        num_args = 0..
    )]
    tracing_tags: Option<Vec<String>>,
    /// Roots that the receiver's certificate is checked with, a PEM file [default: those of the system].
    #[arg(long, env = "UNDERMESH_TRACING_CA", value_name = "FILE")]
    tracing_ca: Option<PathBuf>,
    /// How long live connections may go on after SIGTERM [default: 30s].
    #[arg(long, env = "UNDERMESH_DRAIN_TIMEOUT", value_name = "DURATION")]
    drain_timeout: Option<Span>,
    /// How long live connections may go on after another agent has taken over [default: 12h].
    #[arg(long, env = "UNDERMESH_HANDOVER_TIMEOUT", value_name = "DURATION")]
    handover_timeout: Option<Span>,
    /// Longest time in which nothing comes of a request's body that has a length; 0s for any [default: 5m].
    #[arg(long, env = "UNDERMESH_BODY_IDLE_TIMEOUT", value_name = "DURATION")]
    body_idle_timeout: Option<Span>,
    /// How long a client of HTTP/1.1 may have a connection open without a request; 0s for any [default: 1h].
    #[arg(long, env = "UNDERMESH_HTTP_IDLE_TIMEOUT", value_name = "DURATION")]
    http_idle_timeout: Option<Span>,
    /// No pod takes more than its share of the threads that carry connections while others want theirs
    /// [default: false].
    #[arg(long, env = "UNDERMESH_FAIRNESS", value_name = "BOOL")]
    fairness: Option<bool>,
    /// Resident memory, in bytes, that counts as all there is, beside the limits of cgroups [default: none].
    #[arg(long, env = "UNDERMESH_OVERLOAD_MEMORY", value_name = "BYTES")]
    overload_memory: Option<u64>,
    /// How late the threads that carry connections may be [default: 1s].
    #[arg(long, env = "UNDERMESH_OVERLOAD_DELAY", value_name = "DURATION")]
    overload_delay: Option<Span>,
    /// Threads that carry connections [default: one per processor].
    #[arg(long, env = "UNDERMESH_WORKERS", value_name = "N")]
    workers: Option<usize>,
    /// Size of the pod map [default: 1024].
    #[arg(long, env = "UNDERMESH_MAX_PODS", value_name = "ENTRIES")]
    max_pods: Option<u32>,
    /// Size of the workload map [default: 65536].
    #[arg(long, env = "UNDERMESH_MAX_WORKLOADS", value_name = "ENTRIES")]
    max_workloads: Option<u32>,
    /// Size of the policy map [default: 65536].
    #[arg(long, env = "UNDERMESH_MAX_POLICY_ENTRIES", value_name = "ENTRIES")]
    max_policy_entries: Option<u32>,
    /// Size of the service map [default: 16384].
    #[arg(long, env = "UNDERMESH_MAX_SERVICES", value_name = "ENTRIES")]
    max_services: Option<u32>,
    /// Size of the backend map [default: 131072].
    #[arg(long, env = "UNDERMESH_MAX_BACKENDS", value_name = "ENTRIES")]
    max_backends: Option<u32>,
    /// Size of the maps of ports of this node's pods [default: 16384].
    #[arg(long, env = "UNDERMESH_MAX_POD_PORTS", value_name = "ENTRIES")]
    max_pod_ports: Option<u32>,
    /// Size of the connection maps [default: 131072].
    #[arg(long, env = "UNDERMESH_MAX_CONNECTIONS", value_name = "ENTRIES")]
    max_connections: Option<u32>,
    /// Size of the event buffer in bytes, a power of two [default: 1048576].
    #[arg(long, env = "UNDERMESH_EVENT_BUFFER_BYTES", value_name = "BYTES")]
    event_buffer_bytes: Option<u32>,
}

/// PERMISSIVE or STRICT, as PeerAuthentication writes them.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPERCASE")]
enum Mtls {
    Permissive,
    Strict,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SameNodeValue {
    /// Inside the kernel.
    Direct,
    /// Through the proxy and a tunnel.
    Encrypt,
}

#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SourceAddressValue {
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
struct Span(Duration);

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

/// The validated configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) node: String,
    pub(crate) manifests: PathBuf,
    pub(crate) ca_dir: PathBuf,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) cluster: String,
    pub(crate) cgroup: PathBuf,
    pub(crate) pin_dir: PathBuf,
    pub(crate) mtls: MtlsMode,
    pub(crate) root_namespace: String,
    pub(crate) outbound_failure: FailMode,
    pub(crate) outbound_policy: OutboundPolicy,
    pub(crate) same_node: SameNode,
    pub(crate) source_address: SourceAddress,
    pub(crate) svid_lifetime: Duration,
    pub(crate) admin_address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) readiness_address: SocketAddr,
    pub(crate) access_log: AccessLogTarget,
    pub(crate) flow_buffer: usize,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    pub(crate) kernel_log: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) tunnel_idle_timeout: Duration,
    pub(crate) native: NativeConfig,
    /// DNS servers that hosts are resolved with; empty for those of the system.
    pub(crate) dns_servers: Vec<SocketAddr>,
    /// Where spans of requests go, and of which; `None` where there are none.
    pub(crate) tracing: Option<TracingConfig>,
    pub(crate) drain_timeout: Duration,
    pub(crate) handover_timeout: Duration,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) http_idle_timeout: Duration,
    pub(crate) fairness: bool,
    /// What the agent may use before it sheds load.
    pub(crate) overload: OverloadConfig,
    pub(crate) workers: usize,
    pub(crate) sizes: MapSizes,
    pub(crate) kubelet_cgroup: KubeletCgroup,
    pub(crate) gate: GateConfig,
}

/// The settings that are known even where others are wrong or missing, for diagnosis.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub(crate) node: Option<String>,
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) ca_dir: PathBuf,
    /// `None` where no cgroup2 hierarchy is mounted.
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) pin_dir: PathBuf,
    pub(crate) admin_address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) readiness_address: SocketAddr,
}

/// Where connections are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessLogTarget {
    Stdout,
    Off,
    File(PathBuf),
}

macro_rules! prefer {
    ($first:expr, $second:expr; $($field:ident)*) => {
        RawConfig { $($field: $first.$field.or($second.$field),)* }
    };
}

impl RawConfig {
    /// Reads a configuration file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        serde_yaml_ng::from_str(&text)
            .with_context(|| format!("configuration file {} is not usable", path.display()))
    }

    /// These settings, and those of `other` where these say nothing.
    pub(crate) fn or(self, other: Self) -> Self {
        prefer!(self, other; node manifests ca_dir trust_domain cluster cgroup pin_dir mtls
            root_namespace outbound_failure outbound_traffic_policy same_node source_address svid_lifetime admin_address
            metrics_address readiness_address access_log flow_buffer log_level log_format kernel_log connect_timeout
            tunnel_idle_timeout native_idle_timeout native_max_idle native_max_ready dns_servers drain_timeout handover_timeout body_idle_timeout http_idle_timeout fairness overload_memory overload_delay workers max_pods max_workloads
            max_policy_entries max_services max_backends max_connections max_pod_ports
            event_buffer_bytes kubelet_cgroup startup_gate startup_gate_timeout startup_gate_exempt
            pod_cgroup tracing_endpoint tracing_protocol tracing_sampling tracing_max_path_length
            tracing_tags tracing_ca)
    }

    fn flow_buffer(&self) -> Result<usize> {
        let records = self.flow_buffer.unwrap_or(DEFAULT_FLOW_BUFFER);
        ensure!(
            records <= MAX_FLOW_BUFFER,
            "flowBuffer must be at most {MAX_FLOW_BUFFER} records; 0 switches flow records off"
        );
        Ok(records)
    }

    /// What the agent may use.
    fn overload(&self) -> Result<OverloadConfig> {
        let delay = span(self.overload_delay, Duration::from_secs(1));
        ensure!(!delay.is_zero(), "overloadDelay must be above 0s");
        ensure!(self.overload_memory != Some(0), "overloadMemory must be above 0 bytes");
        Ok(OverloadConfig { memory: self.overload_memory, delay })
    }

    /// How connections of the native wire are kept.
    fn native(&self) -> NativeConfig {
        let default = NativeConfig::default();
        NativeConfig {
            idle: span(self.native_idle_timeout, default.idle),
            max_idle: self.native_max_idle.unwrap_or(default.max_idle),
            max_ready: self.native_max_ready.unwrap_or(default.max_ready),
            ..default
        }
    }

    /// Fills in the defaults and checks what a type cannot.
    pub(crate) fn validate(self) -> Result<Config> {
        let trust_domain = match &self.trust_domain {
            Some(text) => text.parse().context("trustDomain")?,
            None => TrustDomain::default(),
        };
        let admin_address = self.admin_address.unwrap_or(address(DEFAULT_ADMIN)?);
        ensure!(
            admin_address.ip().is_loopback(),
            "adminAddress {admin_address} is not a loopback address; the admin interface has no \
             authentication, reach it through `ip netns exec` or a port forward"
        );
        let svid_lifetime = span(self.svid_lifetime, Duration::from_secs(24 * 3600));
        ensure!(
            svid_lifetime >= Duration::from_secs(10),
            "svidLifetime is shorter than 10s; certificates would be renewed without end"
        );
        let workers = self.workers.unwrap_or_else(processors);
        ensure!(workers > 0, "workers must be at least 1");
        let cgroup = self.attach_point()?;
        Ok(Config {
            node: self.node.clone().filter(|node| !node.is_empty()).context(
                "no node name is set; pass --node, or `node:` in the configuration file",
            )?,
            manifests: self.manifests.clone().context(
                "no manifest directory is set; pass --manifests, or `manifests:` in the \
                 configuration file",
            )?,
            ca_dir: self.ca_dir.clone().unwrap_or_else(|| DEFAULT_CA_DIR.into()),
            trust_domain,
            cluster: self.cluster.clone().unwrap_or_else(|| "Kubernetes".to_owned()),
            gate: GateConfig::new(&self, &cgroup)?,
            cgroup,
            pin_dir: self.pin_dir.clone().unwrap_or_else(|| DEFAULT_PIN_DIR.into()),
            mtls: match self.mtls {
                None | Some(Mtls::Permissive) => MtlsMode::Permissive,
                Some(Mtls::Strict) => MtlsMode::Strict,
            },
            root_namespace: self
                .root_namespace
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "istio-system".to_owned()),
            outbound_failure: self.outbound_failure.map(FailMode::from).unwrap_or_default(),
            outbound_policy: self
                .outbound_traffic_policy
                .map(OutboundPolicy::from)
                .unwrap_or_default(),
            same_node: match self.same_node {
                None | Some(SameNodeValue::Direct) => SameNode::Direct,
                Some(SameNodeValue::Encrypt) => SameNode::Encrypt,
            },
            source_address: match self.source_address {
                None | Some(SourceAddressValue::Translated) => SourceAddress::Translated,
                Some(SourceAddressValue::Transparent) => SourceAddress::Transparent,
            },
            kubelet_cgroup: match self.kubelet_cgroup.clone() {
                None => KubeletCgroup::Auto,
                Some(path) if path.as_os_str() == "auto" => KubeletCgroup::Auto,
                Some(path) if path.as_os_str() == "none" => KubeletCgroup::None,
                Some(path) => KubeletCgroup::Path(path),
            },
            svid_lifetime,
            admin_address,
            metrics_address: self.metrics_address.unwrap_or(address(DEFAULT_METRICS)?),
            readiness_address: self.readiness_address.unwrap_or(address(DEFAULT_READINESS)?),
            access_log: match self.access_log.as_deref() {
                None | Some("stdout") => AccessLogTarget::Stdout,
                Some("off") => AccessLogTarget::Off,
                Some(path) => AccessLogTarget::File(path.into()),
            },
            flow_buffer: self.flow_buffer()?,
            log_level: self.log_level.clone().unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
            kernel_log: self.kernel_log.unwrap_or(false),
            connect_timeout: span(self.connect_timeout, Duration::from_secs(5)),
            tunnel_idle_timeout: span(self.tunnel_idle_timeout, Duration::from_secs(300)),
            native: self.native(),
            dns_servers: self.dns_servers.clone().unwrap_or_default(),
            tracing: TracingConfig::new(&self)?,
            drain_timeout: span(self.drain_timeout, Duration::from_secs(30)),
            handover_timeout: span(self.handover_timeout, Duration::from_secs(12 * 3600)),
            body_idle_timeout: span(self.body_idle_timeout, Duration::from_secs(300)),
            http_idle_timeout: span(self.http_idle_timeout, Duration::from_secs(3600)),
            fairness: self.fairness.unwrap_or(false),
            overload: self.overload()?,
            workers,
            sizes: self.sizes()?,
        })
    }

    /// What is known of them as they are.
    pub(crate) fn outline(&self) -> Result<Outline> {
        let root = CgroupRoot::find().ok();
        Ok(Outline {
            node: self.node.clone(),
            manifests: self.manifests.clone(),
            ca_dir: self.ca_dir.clone().unwrap_or_else(|| DEFAULT_CA_DIR.into()),
            cgroup: root.map(|root| match &self.cgroup {
                Some(path) => root.resolve(path),
                None => default_attach_point(&root),
            }),
            pin_dir: self.pin_dir.clone().unwrap_or_else(|| DEFAULT_PIN_DIR.into()),
            admin_address: self.admin_address.unwrap_or(address(DEFAULT_ADMIN)?),
            metrics_address: self.metrics_address.unwrap_or(address(DEFAULT_METRICS)?),
            readiness_address: self.readiness_address.unwrap_or(address(DEFAULT_READINESS)?),
        })
    }

    /// Whether an agent would take them. Those that it must be given are no matter here: whoever
    /// asks may have no more than this machine.
    pub(crate) fn check(self) -> Result<()> {
        let given = Self {
            node: Some("this-node".to_owned()),
            manifests: Some("/".into()),
            ..Self::default()
        };
        self.or(given).validate().map(drop)
    }

    fn attach_point(&self) -> Result<PathBuf> {
        let root = CgroupRoot::find()?;
        let path = match &self.cgroup {
            Some(path) => root.resolve(path),
            None => default_attach_point(&root),
        };
        ensure!(
            path.starts_with(root.path()),
            "cgroup {} is not below the cgroup2 mount {}",
            path.display(),
            root.path().display()
        );
        Ok(path)
    }

    fn sizes(&self) -> Result<MapSizes> {
        let default = MapSizes::default();
        let sizes = MapSizes {
            pods: self.max_pods.unwrap_or(default.pods),
            workloads: self.max_workloads.unwrap_or(default.workloads),
            policy_entries: self.max_policy_entries.unwrap_or(default.policy_entries),
            services: self.max_services.unwrap_or(default.services),
            backends: self.max_backends.unwrap_or(default.backends),
            connections: self.max_connections.unwrap_or(default.connections),
            pod_ports: self.max_pod_ports.unwrap_or(default.pod_ports),
            event_bytes: self.event_buffer_bytes.unwrap_or(default.event_bytes),
        };
        for (name, size) in [
            ("maxPods", sizes.pods),
            ("maxWorkloads", sizes.workloads),
            ("maxPolicyEntries", sizes.policy_entries),
            ("maxServices", sizes.services),
            ("maxBackends", sizes.backends),
            ("maxConnections", sizes.connections),
            ("maxPodPorts", sizes.pod_ports),
        ] {
            ensure!((1..=1 << 24).contains(&size), "{name} must be between 1 and 16777216");
        }
        ensure!(
            sizes.event_bytes.is_power_of_two() && (4096..=1 << 28).contains(&sizes.event_bytes),
            "eventBufferBytes must be a power of two between 4096 and 268435456"
        );
        Ok(sizes)
    }
}

fn span(value: Option<Span>, default: Duration) -> Duration {
    value.map_or(default, |span| span.0)
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("{text} is not an address"))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests;
