//! Configuration: what users may write ([`RawConfig`]), and what the agent works from ([`Config`]).

mod audit;
mod ca;
mod gate;
mod outbound;
mod raw;
mod source;
mod tracing;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_datapath::{CgroupRoot, MapSizes, default_attach_point};
use undermesh_identity::RemoteConfig;
use undermesh_model::{FailMode, MtlsMode, SourceAddress, TrustDomain};
use undermesh_proxy::{HeadLimits, NativeConfig};
use undermesh_snapshot::{OutboundPolicy, SameNode};
use undermesh_telemetry::AuditSink;

use crate::{
    cli::{DEFAULT_ADMIN, DEFAULT_PIN_DIR},
    kubelet::KubeletCgroup,
    overload::OverloadConfig,
};
pub(crate) use audit::audit_sink;
pub(crate) use gate::GateConfig;
pub(crate) use outbound::OutboundTrafficPolicy;
use raw::SourceAddressValue;
pub(crate) use raw::{LogFormat, Mtls, RawConfig, SameNodeValue, Span};
pub(crate) use source::SourceConfig;
pub(crate) use tracing::TracingConfig;

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

/// The validated configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) node: String,
    pub(crate) source: SourceConfig,
    pub(crate) ca_dir: PathBuf,
    /// In place of the directory.
    pub(crate) ca_remote: Option<RemoteConfig>,
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
    pub(crate) audit: AuditSink,
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
    /// An agent that has handed over ends by itself.
    pub(crate) handover_exit: bool,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) http_idle_timeout: Duration,
    pub(crate) http2_idle_timeout: Duration,
    /// Bytes a second of a request's body; 0 for any.
    pub(crate) body_min_rate: u64,
    pub(crate) body_rate_window: Duration,
    pub(crate) head: HeadLimits,
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
    /// In place of the directory.
    pub(crate) ca_remote: Option<RemoteConfig>,
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

impl RawConfig {
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

    /// How large heads of requests may be.
    fn head(&self) -> Result<HeadLimits> {
        let default = HeadLimits::default();
        let head = HeadLimits {
            bytes: self.max_request_head_bytes.unwrap_or(default.bytes),
            headers: self.max_request_headers.unwrap_or(default.headers),
        };
        let (bytes, headers) = (4096..=1 << 20, 16..=1000);
        ensure!(
            bytes.contains(&head.bytes),
            "maxRequestHeadBytes must be between {} and {}",
            bytes.start(),
            bytes.end()
        );
        ensure!(
            headers.contains(&head.headers),
            "maxRequestHeaders must be between {} and {}",
            headers.start(),
            headers.end()
        );
        Ok(head)
    }

    fn body_rate_window(&self) -> Result<Duration> {
        let window = span(self.body_rate_window, Duration::from_secs(30));
        ensure!(
            (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&window),
            "bodyRateWindow must be between 1s and 1h"
        );
        let counts =
            self.body_rate_window.is_none() || self.body_min_rate.is_some_and(|rate| rate > 0);
        ensure!(counts, "bodyRateWindow has no effect without bodyMinRate");
        Ok(window)
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
        let cluster = self.cluster.clone().unwrap_or_else(|| "Kubernetes".to_owned());
        Ok(Config {
            node: self.node_name()?,
            source: self.source(&trust_domain, &cluster)?,
            ca_dir: self.ca_dir.clone().unwrap_or_else(|| DEFAULT_CA_DIR.into()),
            ca_remote: self.remote_ca(&trust_domain, &cluster)?,
            trust_domain,
            cluster,
            gate: GateConfig::new(&self, &cgroup)?,
            cgroup,
            pin_dir: self.pin_dir.clone().unwrap_or_else(|| DEFAULT_PIN_DIR.into()),
            mtls: self.mtls.unwrap_or(Mtls::Permissive).into(),
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
            same_node: self.same_node.unwrap_or(SameNodeValue::Direct).into(),
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
            audit: audit_sink(
                self.audit_log.as_deref(),
                self.audit_log_max_bytes,
                self.audit_log_keep,
                AuditSink::Off,
            )?,
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
            handover_exit: self.handover_exit.unwrap_or(true),
            body_idle_timeout: span(self.body_idle_timeout, Duration::from_secs(300)),
            http_idle_timeout: span(self.http_idle_timeout, Duration::from_secs(3600)),
            http2_idle_timeout: span(self.http2_idle_timeout, Duration::from_secs(3600)),
            body_min_rate: self.body_min_rate.unwrap_or(0),
            body_rate_window: self.body_rate_window()?,
            head: self.head()?,
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
            ca_remote: self.remote_ca(&TrustDomain::default(), "").unwrap_or_default(),
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
        let needs_manifests = self.source.is_none();
        let given = Self {
            node: Some("this-node".to_owned()),
            manifests: needs_manifests.then(|| "/".into()),
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
