//! The controller's settings: what users may write, in a file, the environment or flags, and what the
//! controller works from.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use undermesh_identity::{CaOptions, Rotation, issuance::IssuanceConfig};
use undermesh_model::TrustDomain;
use undermesh_telemetry::AuditSink;

use super::leader::Terms;
use crate::config::{LogFormat, Span, audit_sink};

const DAY: u64 = 24 * 3600;
const DEFAULT_NAMESPACE: &str = "undermesh-system";
/// Istio's ports, since its clients may ask here.
const DEFAULT_GRPC: &str = "[::]:15012";
const DEFAULT_WEBHOOK: &str = "[::]:15017";
const DEFAULT_METRICS: &str = "[::]:15014";
const DEFAULT_READINESS: &str = "[::]:15021";
/// It has no authentication.
const DEFAULT_DASHBOARD: &str = "127.0.0.1:15018";
/// Certificates that live longer are no longer renewed often enough for anybody to notice that they are not.
const LONGEST_CERTIFICATE: Duration = Duration::from_secs(90 * DAY);
const SHORTEST_CERTIFICATE: Duration = Duration::from_secs(10);

/// Every setting, all optional: the union of file, environment and flags.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RawSettings {
    /// Kubeconfig of the API server [default: the account of the pod that this runs in].
    #[arg(long, env = "UNDERMESH_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the controller, and of what it keeps [default: undermesh-system].
    #[arg(long, env = "UNDERMESH_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// Name of this replica, different from that of all others [default: the host's name].
    #[arg(long, env = "UNDERMESH_REPLICA", value_name = "NAME")]
    replica: Option<String>,
    /// Trust domain of all identities [default: cluster.local].
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Secret with root and intermediate; made where it is missing [default: undermesh-ca].
    #[arg(long, env = "UNDERMESH_CA_SECRET", value_name = "NAME")]
    ca_secret: Option<String>,
    /// Directory with root and intermediate instead (`undermesh ca init`); nothing in it is changed.
    #[arg(long, env = "UNDERMESH_CA_DIR", value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// ConfigMap that agents have the roots from [default: undermesh-ca-roots].
    #[arg(long, env = "UNDERMESH_CA_CONFIG_MAP", value_name = "NAME")]
    ca_config_map: Option<String>,
    /// Lifetime of a new root; replaced after four fifths of it [default: 3650days].
    #[arg(long, env = "UNDERMESH_ROOT_LIFETIME", value_name = "DURATION")]
    root_lifetime: Option<Span>,
    /// Lifetime of a new intermediate; replaced after half of it [default: 365days].
    #[arg(long, env = "UNDERMESH_INTERMEDIATE_LIFETIME", value_name = "DURATION")]
    intermediate_lifetime: Option<Span>,
    /// How long a new root is made known before anything is signed under it [default: 1h].
    #[arg(long, env = "UNDERMESH_ROOT_SETTLE", value_name = "DURATION")]
    root_settle: Option<Span>,
    /// Lifetime of certificates for which none is asked [default: 24h].
    #[arg(long, env = "UNDERMESH_SVID_LIFETIME", value_name = "DURATION")]
    svid_lifetime: Option<Span>,
    /// Longest lifetime; who asks for more gets this [default: 48h].
    #[arg(long, env = "UNDERMESH_MAX_SVID_LIFETIME", value_name = "DURATION")]
    max_svid_lifetime: Option<Span>,
    /// Audiences of tokens that are accepted [default: undermesh-ca,istio-ca].
    #[arg(
        long,
        env = "UNDERMESH_TOKEN_AUDIENCES",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 1..
    )]
    token_audiences: Option<Vec<String>>,
    /// Service accounts of node agents, which may ask for certificates of the pods of their node, as
    /// NAMESPACE/NAME [default: NAMESPACE/undermesh-agent].
    #[arg(
        long,
        env = "UNDERMESH_NODE_ACCOUNTS",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 1..
    )]
    node_accounts: Option<Vec<String>>,
    /// Names and addresses that the controller is dialled by [default: those of the Service
    /// undermesh-controller].
    #[arg(
        long,
        env = "UNDERMESH_SERVER_NAMES",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 1..
    )]
    server_names: Option<Vec<String>>,
    /// Requests for certificates that one address may make in a second [default: 50].
    #[arg(long, env = "UNDERMESH_CSR_RATE", value_name = "REQUESTS")]
    csr_rate: Option<u32>,
    /// Requests for certificates that one address may make at once [default: 500].
    #[arg(long, env = "UNDERMESH_CSR_BURST", value_name = "REQUESTS")]
    csr_burst: Option<u32>,
    /// Where certificates are given, over gRPC [default: [::]:15012].
    #[arg(long, env = "UNDERMESH_GRPC_ADDRESS", value_name = "ADDRESS")]
    grpc_address: Option<SocketAddr>,
    /// Where the API server asks about objects, over HTTPS [default: [::]:15017].
    #[arg(long, env = "UNDERMESH_WEBHOOK_ADDRESS", value_name = "ADDRESS")]
    webhook_address: Option<SocketAddr>,
    /// ValidatingWebhookConfiguration that is told the roots [default: undermesh-controller].
    #[arg(long, env = "UNDERMESH_WEBHOOK_NAME", value_name = "NAME")]
    webhook_name: Option<String>,
    /// Follow the API server for agents with `source: controller` [default: false].
    #[arg(long, env = "UNDERMESH_DISTRIBUTE", num_args = 0..=1, default_missing_value = "true")]
    distribute: Option<bool>,
    /// Namespace whose policies are about the whole mesh [default: istio-system].
    #[arg(long, env = "UNDERMESH_ROOT_NAMESPACE", value_name = "NAME")]
    root_namespace: Option<String>,
    /// How often the leader looks after statuses of objects, and at what has changed in them; `0s` for never
    /// [default: 15s].
    #[arg(long, env = "UNDERMESH_STATUS_INTERVAL", value_name = "DURATION")]
    status_interval: Option<Span>,
    /// Where Prometheus finds the metrics [default: [::]:15014].
    #[arg(long, env = "UNDERMESH_METRICS_ADDRESS", value_name = "ADDRESS")]
    metrics_address: Option<SocketAddr>,
    /// Where readiness is answered, at /healthz/ready [default: [::]:15021].
    #[arg(long, env = "UNDERMESH_READINESS_ADDRESS", value_name = "ADDRESS")]
    readiness_address: Option<SocketAddr>,
    /// Where the dashboard is, without authentication; `off` for nowhere [default: 127.0.0.1:15018].
    #[arg(long, env = "UNDERMESH_DASHBOARD_ADDRESS", value_name = "ADDRESS")]
    dashboard_address: Option<String>,
    /// Names that browsers may ask for the dashboard by, beside those of loopback and the address itself.
    #[arg(
        long,
        env = "UNDERMESH_DASHBOARD_HOSTS",
        value_name = "NAMES",
        value_delimiter = ',',
        num_args = 1..
    )]
    dashboard_hosts: Option<Vec<String>>,
    /// Lease that says which replica writes into the cluster [default: undermesh-controller].
    #[arg(long, env = "UNDERMESH_LEASE_NAME", value_name = "NAME")]
    lease_name: Option<String>,
    /// How long other replicas wait for a leader that does not renew its lease [default: 15s].
    #[arg(long, env = "UNDERMESH_LEASE_DURATION", value_name = "DURATION")]
    lease_duration: Option<Span>,
    /// How long a leader writes that cannot renew its lease; shorter than leaseDuration [default: 10s].
    #[arg(long, env = "UNDERMESH_LEASE_RENEW_DEADLINE", value_name = "DURATION")]
    lease_renew_deadline: Option<Span>,
    /// How often the lease is renewed or looked at [default: 2s].
    #[arg(long, env = "UNDERMESH_LEASE_RETRY_PERIOD", value_name = "DURATION")]
    lease_retry_period: Option<Span>,
    /// Where the audit log goes: `stdout`, `off`, or a file [default: stdout].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG", value_name = "TARGET")]
    audit_log: Option<String>,
    /// Size at which another file is begun, in bytes [default: 104857600].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG_MAX_BYTES", value_name = "BYTES")]
    audit_log_max_bytes: Option<u64>,
    /// Older files that are kept [default: 5].
    #[arg(long, env = "UNDERMESH_AUDIT_LOG_KEEP", value_name = "FILES")]
    audit_log_keep: Option<u32>,
    /// Log filter: a level, or directives such as `info,undermesh_identity=debug` [default: info].
    #[arg(long, env = "UNDERMESH_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
    /// Log format [default: text].
    #[arg(long, env = "UNDERMESH_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// The validated settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) namespace: String,
    pub(super) replica: String,
    pub(super) ca_secret: String,
    /// In place of the Secret.
    pub(super) ca_dir: Option<PathBuf>,
    pub(super) ca_config_map: String,
    pub(super) rotation: Rotation,
    pub(super) issuance: IssuanceConfig,
    pub(super) audiences: Vec<String>,
    pub(super) server_names: Vec<String>,
    pub(super) grpc_address: SocketAddr,
    pub(super) webhook_address: SocketAddr,
    pub(super) webhook_name: String,
    /// Agents may have their configuration from here.
    pub(super) distribute: bool,
    pub(super) root_namespace: String,
    /// `None` for never.
    pub(super) status_interval: Option<Duration>,
    pub(super) metrics_address: SocketAddr,
    pub(super) readiness_address: SocketAddr,
    /// `None` for nowhere.
    pub(super) dashboard_address: Option<SocketAddr>,
    pub(super) dashboard_hosts: Vec<String>,
    pub(super) lease_name: String,
    pub(super) terms: Terms,
    pub(super) audit: AuditSink,
    pub(super) log_level: String,
    pub(super) log_format: LogFormat,
}

macro_rules! prefer {
    ($first:expr, $second:expr; $($field:ident)*) => {
        RawSettings { $($field: $first.$field.or($second.$field),)* }
    };
}

impl RawSettings {
    /// Reads a configuration file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        serde_yaml_ng::from_str(&text)
            .with_context(|| format!("configuration file {} is not usable", path.display()))
    }

    /// These settings, and those of `other` where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        prefer!(self, other; kubeconfig namespace replica trust_domain ca_secret ca_dir ca_config_map
            root_lifetime intermediate_lifetime root_settle svid_lifetime max_svid_lifetime
            token_audiences node_accounts server_names csr_rate csr_burst grpc_address webhook_address webhook_name
            distribute root_namespace status_interval metrics_address
            readiness_address dashboard_address dashboard_hosts lease_name lease_duration lease_renew_deadline lease_retry_period
            audit_log audit_log_max_bytes audit_log_keep log_level log_format)
    }

    /// Fills in the defaults and checks what a type cannot.
    pub(super) fn validate(self) -> Result<Settings> {
        let trust_domain: TrustDomain = match &self.trust_domain {
            Some(text) => text.parse().context("trustDomain")?,
            None => TrustDomain::default(),
        };
        let namespace = name("namespace", self.namespace.as_deref(), DEFAULT_NAMESPACE)?;
        ensure!(
            self.ca_dir.is_none() || self.ca_secret.is_none(),
            "caDir and caSecret are both set; root and intermediate come from one of them"
        );
        let issuance = self.issuance(&trust_domain, &namespace)?;
        let audiences = self.token_audiences.clone();
        let audiences =
            audiences.unwrap_or_else(|| vec!["undermesh-ca".to_owned(), "istio-ca".to_owned()]);
        ensure!(
            !audiences.is_empty() && audiences.iter().all(|it| !it.is_empty()),
            "tokenAudiences has to name at least one; without, a token for anybody would do"
        );
        Ok(Settings {
            kubeconfig: self.kubeconfig.clone(),
            replica: match self.replica.clone().filter(|name| !name.is_empty()) {
                Some(name) => name,
                None => hostname()?,
            },
            ca_secret: name("caSecret", self.ca_secret.as_deref(), "undermesh-ca")?,
            ca_dir: self.ca_dir.clone(),
            ca_config_map: name(
                "caConfigMap",
                self.ca_config_map.as_deref(),
                "undermesh-ca-roots",
            )?,
            rotation: self.rotation(trust_domain, &issuance)?,
            issuance,
            audiences,
            server_names: self.server_names.clone().unwrap_or_else(|| service_names(&namespace)),
            grpc_address: self.grpc_address.unwrap_or(address(DEFAULT_GRPC)?),
            webhook_address: self.webhook_address.unwrap_or(address(DEFAULT_WEBHOOK)?),
            webhook_name: name(
                "webhookName",
                self.webhook_name.as_deref(),
                "undermesh-controller",
            )?,
            distribute: self.distribute.unwrap_or_default(),
            root_namespace: name("rootNamespace", self.root_namespace.as_deref(), "istio-system")?,
            status_interval: Some(span(self.status_interval, 15)).filter(|it| !it.is_zero()),
            metrics_address: self.metrics_address.unwrap_or(address(DEFAULT_METRICS)?),
            readiness_address: self.readiness_address.unwrap_or(address(DEFAULT_READINESS)?),
            dashboard_address: dashboard_address(self.dashboard_address.as_deref())?,
            dashboard_hosts: self.dashboard_hosts()?,
            lease_name: name("leaseName", self.lease_name.as_deref(), "undermesh-controller")?,
            terms: self.terms()?,
            audit: audit_sink(
                self.audit_log.as_deref(),
                self.audit_log_max_bytes,
                self.audit_log_keep,
                AuditSink::Stdout,
            )?,
            log_level: self.log_level.clone().unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
            namespace,
        })
    }

    fn dashboard_hosts(&self) -> Result<Vec<String>> {
        let hosts = self.dashboard_hosts.clone().unwrap_or_default();
        let bad = hosts.iter().find(|host| host.is_empty() || host.contains(['/', ':', '*', ' ']));
        ensure!(
            bad.is_none(),
            "dashboardHosts: {bad:?} is no name of a host; write it without port"
        );
        Ok(hosts)
    }

    fn issuance(&self, trust_domain: &TrustDomain, namespace: &str) -> Result<IssuanceConfig> {
        let lifetime = span(self.svid_lifetime, DAY);
        let max_lifetime = self
            .max_svid_lifetime
            .map_or_else(|| lifetime.max(Duration::from_secs(2 * DAY)), |span| span.0);
        ensure!(
            lifetime >= SHORTEST_CERTIFICATE,
            "svidLifetime is shorter than {SHORTEST_CERTIFICATE:?}; certificates would be renewed \
             without end"
        );
        ensure!(lifetime <= max_lifetime, "svidLifetime is longer than maxSvidLifetime");
        ensure!(
            max_lifetime <= LONGEST_CERTIFICATE,
            "maxSvidLifetime is longer than 90days; certificates are the only thing that expires"
        );
        let mut node_accounts = BTreeSet::new();
        let default = vec![format!("{namespace}/undermesh-agent")];
        for account in self.node_accounts.as_ref().unwrap_or(&default) {
            let parts = account.split_once('/').filter(|(namespace, name)| {
                !namespace.is_empty() && !name.is_empty() && !name.contains('/')
            });
            let (namespace, name) = parts.with_context(|| {
                format!("nodeAccounts: {account:?} is not of the form NAMESPACE/NAME")
            })?;
            node_accounts.insert((namespace.to_owned(), name.to_owned()));
        }
        let (rate, burst) = (self.csr_rate.unwrap_or(50), self.csr_burst.unwrap_or(500));
        ensure!(rate > 0 && burst > 0, "csrRate and csrBurst must be at least 1");
        Ok(IssuanceConfig {
            trust_domain: trust_domain.clone(),
            lifetime,
            max_lifetime,
            node_accounts,
            requests_per_second: rate,
            burst,
        })
    }

    fn rotation(&self, trust_domain: TrustDomain, issuance: &IssuanceConfig) -> Result<Rotation> {
        let options = CaOptions {
            trust_domain,
            root_lifetime: span(self.root_lifetime, 3650 * DAY),
            intermediate_lifetime: span(self.intermediate_lifetime, 365 * DAY),
        };
        let settle = span(self.root_settle, 3600);
        let longest = issuance.max_lifetime;
        // Half of its life is over when an intermediate is replaced; a certificate must not be cut short.
        ensure!(
            options.intermediate_lifetime / 2 >= longest,
            "intermediateLifetime has to be twice maxSvidLifetime at least"
        );
        ensure!(
            options.intermediate_lifetime <= options.root_lifetime,
            "intermediateLifetime is longer than rootLifetime"
        );
        // A fifth of its life is left when a root is replaced.
        ensure!(
            options.root_lifetime / 5 >= settle + longest * 2,
            "rootLifetime is too short: a fifth of it has to be as long as rootSettle and twice \
             maxSvidLifetime"
        );
        Ok(Rotation { options, longest, settle })
    }

    fn terms(&self) -> Result<Terms> {
        let terms = Terms {
            lease: span(self.lease_duration, 15),
            deadline: span(self.lease_renew_deadline, 10),
            retry: span(self.lease_retry_period, 2),
        };
        ensure!(
            terms.lease.subsec_nanos() == 0 && !terms.lease.is_zero(),
            "leaseDuration has to be whole seconds; a Lease has no others"
        );
        ensure!(
            terms.deadline < terms.lease,
            "leaseRenewDeadline has to be shorter than leaseDuration; else two replicas would write"
        );
        ensure!(
            !terms.retry.is_zero() && terms.retry * 2 <= terms.deadline,
            "leaseRetryPeriod has to be half of leaseRenewDeadline at most"
        );
        Ok(terms)
    }
}

fn span(value: Option<Span>, seconds: u64) -> Duration {
    value.map_or(Duration::from_secs(seconds), |span| span.0)
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("{text} is not an address"))
}

/// A name of an object, which gets into paths.
fn name(setting: &str, value: Option<&str>, default: &str) -> Result<String> {
    let value = value.filter(|value| !value.is_empty()).unwrap_or(default);
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    ensure!(
        value.len() <= 253 && value.chars().all(good),
        "{setting}: {value:?} is no name of an object; those have a-z, 0-9, '-' and '.'"
    );
    Ok(value.to_owned())
}

fn service_names(namespace: &str) -> Vec<String> {
    let name = "undermesh-controller";
    vec![
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
        format!("{name}.{namespace}"),
        name.to_owned(),
    ]
}

fn dashboard_address(given: Option<&str>) -> Result<Option<SocketAddr>> {
    match given {
        Some("off") => Ok(None),
        given => {
            let given = given.unwrap_or(DEFAULT_DASHBOARD);
            let address = given.parse().with_context(|| {
                format!("dashboardAddress: {given:?} is neither ADDRESS:PORT nor off")
            })?;
            Ok(Some(address))
        }
    }
}

fn hostname() -> Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    ensure!(!name.is_empty(), "this host has no name; pass --replica");
    Ok(name)
}

#[cfg(test)]
mod tests;
