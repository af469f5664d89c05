//! Envoy's configuration. Both kinds write their access log to a file, a line for each connection or
//! request, as the agents do by default.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};
use undermesh_tests::Authority;

use super::{ADMIN, INBOUND, OUTBOUND, shown};
use crate::bench::mesh::{
    ground::HEADER,
    servers::{HTTP, REQUESTS},
};

const TYPES: &str = "type.googleapis.com/envoy";
const TRUST: &str = "spiffe://cluster.local/ns/shop/sa/";
/// No breaker is to open: as Istio sets them.
const UNBOUNDED: u32 = u32::MAX;

/// What a sidecar proves itself with, and whom it believes.
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
}

impl Identity {
    pub(super) fn issue(authority: &Authority, pod: &str) -> Result<Self> {
        let issued = authority.issue(&[&format!("{TRUST}{pod}")])?;
        let root = authority.root_file();
        Ok(Self { certificate: issued.certificate_file, key: issued.key_file, root })
    }

    fn tls(&self, direction: &str, protocols: &[&str]) -> Value {
        let upstream = direction == "Upstream";
        let mut context = json!({
            "@type": format!("{TYPES}.extensions.transport_sockets.tls.v3.{direction}TlsContext"),
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "alpn_protocols": protocols,
                "tls_certificates": [{
                    "certificate_chain": {"filename": shown(&self.certificate)},
                    "private_key": {"filename": shown(&self.key)},
                }],
                "validation_context": {
                    "trusted_ca": {"filename": shown(&self.root)},
                    "match_typed_subject_alt_names":
                        [{"san_type": "URI", "matcher": {"prefix": TRUST}}],
                },
            },
        });
        if !upstream {
            context["require_client_certificate"] = json!(true);
        }
        json!({"name": "tls", "typed_config": context})
    }
}

/// The server's sidecar: ends TLS, and dials the server beside it.
pub(super) struct Inbound<'a> {
    pub(super) ports: &'a [u16],
    pub(super) routed: bool,
    pub(super) log: &'a Path,
}

impl Inbound<'_> {
    pub(super) fn config(&self, identity: &Identity) -> Value {
        let chain = |port: u16| {
            let cluster = format!("own-{port}");
            let (filter, protocols) = if self.routed {
                let everything = json!([route(json!({"prefix": "/"}), &cluster)]);
                (requests(everything, self.log), &["h2"][..])
            } else {
                (tcp(&cluster, self.log), &[][..])
            };
            json!({
                "filter_chain_match": {"destination_port": port},
                "transport_socket": identity.tls("Downstream", protocols),
                "filters": [filter],
            })
        };
        let clusters = self.ports.iter().map(|port| {
            let own = endpoint(&format!("own-{port}"), [127, 0, 0, 1].into(), *port);
            if self.routed && *port != HTTP { http2(own) } else { own }
        });
        let chains = self.ports.iter().map(|port| chain(*port)).collect();
        bootstrap(listener(INBOUND, chains), clusters.collect())
    }
}

/// The client's sidecar: dials by TLS whom the client has dialled, or whom a route names.
pub(super) struct Outbound<'a> {
    /// The addresses of both versions.
    pub(super) routes: Option<[IpAddr; 2]>,
    pub(super) log: &'a Path,
}

impl Outbound<'_> {
    pub(super) fn config(&self, identity: &Identity) -> Value {
        let Some([first, second]) = self.routes else {
            let mut original = json!({
                "name": "original", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
                "connect_timeout": "5s", "circuit_breakers": breakers(),
            });
            original["transport_socket"] = identity.tls("Upstream", &[]);
            let chain = json!({"filters": [tcp("original", self.log)]});
            return bootstrap(listener(OUTBOUND, vec![chain]), vec![original]);
        };
        let mut chains = Vec::new();
        let mut clusters = Vec::new();
        for port in REQUESTS {
            let (v1, v2) = (format!("v1-{port}"), format!("v2-{port}"));
            let (name, value) = HEADER;
            let headers = json!([{"name": name, "string_match": {"exact": value}}]);
            let routes = json!([
                route(json!({"prefix": "/", "headers": headers}), &v2),
                route(json!({"prefix": "/"}), &v1),
            ]);
            chains.push(json!({
                "filter_chain_match": {"destination_port": port},
                "filters": [requests(routes, self.log)],
            }));
            for (name, address) in [(v1, first), (v2, second)] {
                let mut cluster = http2(endpoint(&name, address, port));
                cluster["transport_socket"] = identity.tls("Upstream", &["h2"]);
                clusters.push(cluster);
            }
        }
        bootstrap(listener(OUTBOUND, chains), clusters)
    }
}

fn bootstrap(listener: Value, clusters: Vec<Value>) -> Value {
    let admin = json!({"socket_address": {"address": "127.0.0.1", "port_value": ADMIN}});
    json!({
        "admin": {"address": admin},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    })
}

fn listener(port: u16, chains: Vec<Value>) -> Value {
    json!({
        "name": "redirected",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "tcp_backlog_size": 4096,
        "listener_filters": [typed(
            "envoy.filters.listener.original_dst",
            "extensions.filters.listener.original_dst.v3.OriginalDst",
            json!({}),
        )],
        "filter_chains": chains,
    })
}

fn tcp(cluster: &str, log: &Path) -> Value {
    typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": "tcp", "cluster": cluster, "access_log": access_log(log)}),
    )
}

fn requests(routes: Value, log: &Path) -> Value {
    let router =
        typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router", json!({}));
    typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "http",
            "access_log": access_log(log),
            "http_filters": [router],
            "route_config":
                {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        }),
    )
}

fn route(matched: Value, cluster: &str) -> Value {
    json!({"match": matched, "route": {"cluster": cluster, "timeout": "0s"}})
}

fn access_log(file: &Path) -> Value {
    json!([typed(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        json!({"path": shown(file)}),
    )])
}

fn endpoint(name: &str, address: IpAddr, port: u16) -> Value {
    let socket = json!({"socket_address": {"address": address, "port_value": port}});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": breakers(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}],
        },
    })
}

fn http2(mut cluster: Value) -> Value {
    let name = "extensions.upstreams.http.v3.HttpProtocolOptions";
    let options = json!({
        "@type": format!("{TYPES}.{name}"),
        "explicit_http_config": {"http2_protocol_options": {}},
    });
    cluster["typed_extension_protocol_options"] = json!({format!("envoy.{name}"): options});
    cluster
}

fn breakers() -> Value {
    json!({"thresholds": [{
        "max_connections": UNBOUNDED, "max_pending_requests": UNBOUNDED,
        "max_requests": UNBOUNDED, "max_retries": UNBOUNDED,
    }]})
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{TYPES}.{kind}"));
    json!({"name": name, "typed_config": config})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let file = |name: &str| PathBuf::from("/run/x").join(name);
        Identity { certificate: file("crt"), key: file("key"), root: file("root") }
    }

    #[test]
    fn both_ends_prove_themselves_and_only_the_route_looks_at_requests() {
        let log = Path::new("/run/x/log");
        let inbound = Inbound { ports: &[HTTP], routed: false, log }.config(&identity());
        let text = inbound.to_string();
        assert!(text.contains("\"require_client_certificate\":true"), "{text}");
        assert!(!text.contains("HttpConnectionManager"), "{text}");
        let addresses = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let outbound = Outbound { routes: Some(addresses), log }.config(&identity());
        let chains = outbound.pointer("/static_resources/listeners/0/filter_chains").unwrap();
        assert_eq!(chains.as_array().unwrap().len(), REQUESTS.len());
        let clusters = outbound.pointer("/static_resources/clusters").unwrap();
        for cluster in clusters.as_array().unwrap() {
            assert!(cluster.to_string().contains("UpstreamTlsContext"), "{cluster}");
        }
    }
}
