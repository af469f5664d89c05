//! What the status and the admin dump say about destinations.

use std::{net::SocketAddr, sync::Arc};

use serde::Serialize;

use super::{Cluster, limits::Limit, member::Member, outlier::Detector};

/// One destination of one client pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// Its name, as Istio has it: `outbound|80|v2|cart.shop.svc.cluster.local`.
    pub cluster: String,
    /// The DestinationRule that it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Limits that are set or in use.
    pub limits: Vec<LimitStatus>,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitStatus {
    /// Its name in a DestinationRule.
    pub name: &'static str,
    /// How much is held now.
    pub held: u32,
    /// How much may be; nothing for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Where it is.
    pub address: SocketAddr,
    /// Its tier.
    pub priority: u32,
    /// Attempts of this pod that run there.
    pub active: u32,
    /// Connections of this pod for requests.
    pub connections: usize,
    /// Why it gets nothing now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected: Option<EjectionStatus>,
}

/// An endpoint that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EjectionStatus {
    /// Why, as the metric of ejections says it.
    pub cause: &'static str,
    /// How often it was ejected.
    pub ejections: u64,
    /// Seconds until it is used again, at the next sweep after that.
    pub seconds_left: u64,
}

/// The state of one cluster.
pub(super) fn of(cluster: &Cluster) -> UpstreamStatus {
    let limits = &cluster.terms().limits;
    let all = [&limits.connections, &limits.pending, &limits.requests, &limits.retries];
    let limits = all.into_iter().map(of_limit);
    let detector = cluster.detector();
    UpstreamStatus {
        cluster: cluster.spec().key.to_string(),
        rule: cluster.spec().rule.as_ref().map(ToString::to_string),
        limits: limits.filter(|limit| limit.max.is_some() || limit.held > 0).collect(),
        endpoints: cluster.members().iter().map(|one| of_member(one, detector)).collect(),
    }
}

fn of_limit(limit: &Arc<Limit>) -> LimitStatus {
    LimitStatus { name: limit.name, held: limit.held(), max: limit.max() }
}

fn of_member(member: &Member, detector: Option<&Arc<Detector>>) -> EndpointStatus {
    let health = member.health.as_ref();
    let ejected = detector.zip(health).and_then(|(detector, health)| detector.ejected(health));
    EndpointStatus {
        address: member.endpoint.address,
        priority: member.endpoint.priority,
        active: member.host.active(),
        connections: member.host.pool.connections(),
        ejected: ejected.map(|ejected| EjectionStatus {
            cause: ejected.cause.as_str(),
            ejections: ejected.ejections,
            seconds_left: ejected.returns_in.as_secs(),
        }),
    }
}
