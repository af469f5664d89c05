//! The shape of a DestinationRule, as Istio's `networking/v1/destination_rule.proto` gives it.

use std::{collections::BTreeMap, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DestinationRule {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) host: String,
    pub(super) traffic_policy: Option<TrafficPolicy>,
    pub(super) subsets: Vec<Subset>,
    pub(super) export_to: Vec<String>,
    pub(super) workload_selector: Option<Selector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    pub(super) match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) traffic_policy: Option<TrafficPolicy>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TrafficPolicy {
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) connection_pool: Option<ConnectionPool>,
    pub(super) outlier_detection: Option<OutlierDetection>,
    pub(super) tls: Option<ClientTls>,
    pub(super) port_level_settings: Vec<PortPolicy>,
    pub(super) tunnel: Option<IgnoredAny>,
    pub(super) proxy_protocol: Option<IgnoredAny>,
    pub(super) retry_budget: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PortPolicy {
    pub(super) port: Option<Port>,
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) connection_pool: Option<ConnectionPool>,
    pub(super) outlier_detection: Option<OutlierDetection>,
    pub(super) tls: Option<ClientTls>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) number: Option<NonZeroU16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LoadBalancer {
    pub(super) simple: Option<Simple>,
    pub(super) consistent_hash: Option<ConsistentHash>,
    pub(super) locality_lb_setting: Option<Locality>,
    pub(super) zone_aware_lb_setting: Option<IgnoredAny>,
    pub(super) warmup_duration_secs: Option<String>,
    pub(super) warmup: Option<Warmup>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Simple {
    Unspecified,
    LeastConn,
    Random,
    Passthrough,
    RoundRobin,
    LeastRequest,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ConsistentHash {
    pub(super) http_header_name: Option<String>,
    pub(super) http_cookie: Option<Cookie>,
    pub(super) use_source_ip: Option<bool>,
    pub(super) http_query_parameter_name: Option<String>,
    pub(super) ring_hash: Option<RingHash>,
    pub(super) maglev: Option<Maglev>,
    pub(super) minimum_ring_size: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cookie {
    pub(super) name: String,
    pub(super) path: Option<String>,
    pub(super) ttl: Option<String>,
    pub(super) attributes: Vec<Attribute>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Attribute {
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RingHash {
    pub(super) minimum_ring_size: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Maglev {
    pub(super) table_size: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Locality {
    pub(super) distribute: Vec<Distribute>,
    pub(super) failover: Vec<Failover>,
    pub(super) failover_priority: Vec<String>,
    pub(super) enabled: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Distribute {
    pub(super) from: String,
    pub(super) to: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failover {
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Warmup {
    pub(super) duration: Option<String>,
    pub(super) minimum_percent: Option<f64>,
    pub(super) aggression: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConnectionPool {
    pub(super) tcp: Option<TcpPool>,
    pub(super) http: Option<HttpPool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TcpPool {
    pub(super) max_connections: Option<u32>,
    pub(super) connect_timeout: Option<String>,
    pub(super) tcp_keepalive: Option<Keepalive>,
    pub(super) max_connection_duration: Option<String>,
    pub(super) idle_timeout: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Keepalive {
    pub(super) probes: Option<u32>,
    pub(super) time: Option<String>,
    pub(super) interval: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpPool {
    pub(super) http1_max_pending_requests: Option<u32>,
    pub(super) http2_max_requests: Option<u32>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) max_retries: Option<u32>,
    pub(super) idle_timeout: Option<String>,
    pub(super) h2_upgrade_policy: H2UpgradePolicy,
    pub(super) use_client_protocol: bool,
    pub(super) max_concurrent_streams: Option<u32>,
    #[serde(rename = "http2KeepAlive")]
    pub(super) http2_keep_alive: Option<Http2Keepalive>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum H2UpgradePolicy {
    #[default]
    Default,
    DoNotUpgrade,
    Upgrade,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Http2Keepalive {
    pub(super) interval: Option<String>,
    pub(super) timeout: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OutlierDetection {
    pub(super) consecutive_errors: Option<u32>,
    pub(super) split_external_local_origin_errors: bool,
    pub(super) consecutive_local_origin_failures: Option<u32>,
    pub(super) consecutive_gateway_errors: Option<u32>,
    #[serde(rename = "consecutive5xxErrors")]
    pub(super) consecutive_5xx_errors: Option<u32>,
    pub(super) interval: Option<String>,
    pub(super) base_ejection_time: Option<String>,
    pub(super) max_ejection_percent: Option<u32>,
    pub(super) min_health_percent: Option<u32>,
    pub(super) outlier_detection_http_error_codes: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClientTls {
    pub(super) mode: Mode,
    pub(super) client_certificate: Option<String>,
    pub(super) private_key: Option<String>,
    pub(super) ca_certificates: Option<String>,
    pub(super) credential_name: Option<String>,
    pub(super) subject_alt_names: Vec<String>,
    pub(super) sni: Option<String>,
    pub(super) insecure_skip_verify: Option<bool>,
    pub(super) ca_crl: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Mode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}
