//! `trafficPolicy`, of a host, a subset or a port.

use std::collections::BTreeMap;

use undermesh_model::traffic as model;

use super::{balancer, outlier, pool, shapes, tls};
use crate::traffic::place::Place;

/// What a policy without settings is told.
const EMPTY: &str = "write at least one setting, or leave it out";

/// Reads a policy.
pub(super) fn policy(
    at: &Place<'_>,
    shape: Option<&shapes::TrafficPolicy>,
) -> model::TrafficPolicy {
    let Some(shape) = shape else { return model::TrafficPolicy::default() };
    let (tunnel, proxy_protocol) = (shape.tunnel.is_some(), shape.proxy_protocol.is_some());
    let settings = shape.settings();
    if settings.is_empty()
        && shape.port_level_settings.is_empty()
        && !tunnel
        && !proxy_protocol
        && shape.retry_budget.is_none()
    {
        at.refuse("has no settings", EMPTY);
    }
    if tunnel && proxy_protocol {
        at.refuse("has tunnel and proxyProtocol", "write one of them");
    }
    at.unsupported("tunnel", shape.tunnel.as_ref(), "connections are made without a tunnel");
    let instead = "connections begin without PROXY protocol";
    at.unsupported("proxyProtocol", shape.proxy_protocol.as_ref(), instead);
    let instead = "it has no effect; connectionPool.http.maxRetries limits retries";
    at.unsupported("retryBudget", shape.retry_budget.as_ref(), instead);
    let ports = ports(&at.field("portLevelSettings"), &shape.port_level_settings);
    model::TrafficPolicy { ports, ..settings.read(at) }
}

fn ports(at: &Place<'_>, shapes: &[shapes::PortPolicy]) -> BTreeMap<u16, model::TrafficPolicy> {
    let mut read = BTreeMap::new();
    for (index, shape) in shapes.iter().enumerate() {
        let at = at.item(index);
        let settings = shape.settings();
        if settings.is_empty() {
            at.refuse("has no settings", EMPTY);
        }
        let policy = settings.read(&at);
        let Some(port) = shape.port.and_then(|port| port.number) else {
            at.field("port").refuse("is missing", "write port.number, a port of the host");
            continue;
        };
        if read.contains_key(&port.get()) {
            let what = format!("port {port} stands there twice, and the first one holds");
            at.field("port").warn("duplicate-port", what, "remove one of them");
            continue;
        }
        read.insert(port.get(), policy);
    }
    read
}

/// What the policies of a host and of a port have in common.
struct Settings<'a> {
    balancer: Option<&'a shapes::LoadBalancer>,
    pool: Option<&'a shapes::ConnectionPool>,
    outlier: Option<&'a shapes::OutlierDetection>,
    tls: Option<&'a shapes::ClientTls>,
}

impl shapes::TrafficPolicy {
    fn settings(&self) -> Settings<'_> {
        Settings {
            balancer: self.load_balancer.as_ref(),
            pool: self.connection_pool.as_ref(),
            outlier: self.outlier_detection.as_ref(),
            tls: self.tls.as_ref(),
        }
    }
}

impl shapes::PortPolicy {
    fn settings(&self) -> Settings<'_> {
        Settings {
            balancer: self.load_balancer.as_ref(),
            pool: self.connection_pool.as_ref(),
            outlier: self.outlier_detection.as_ref(),
            tls: self.tls.as_ref(),
        }
    }
}

impl Settings<'_> {
    fn is_empty(&self) -> bool {
        self.balancer.is_none()
            && self.pool.is_none()
            && self.outlier.is_none()
            && self.tls.is_none()
    }

    fn read(&self, at: &Place<'_>) -> model::TrafficPolicy {
        let has_outlier = self.outlier.is_some();
        model::TrafficPolicy {
            balancer: self
                .balancer
                .map(|one| balancer::balancer(&at.field("loadBalancer"), one, has_outlier)),
            pool: self.pool.map(|one| pool::pool(&at.field("connectionPool"), one)),
            outlier: self.outlier.map(|one| outlier::outlier(&at.field("outlierDetection"), one)),
            tls: self.tls.map(|one| tls::tls(&at.field("tls"), one)),
            ports: BTreeMap::new(),
        }
    }
}
