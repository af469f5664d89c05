//! The part of `undermesh status` about destinations: who is left out and until when, limits, connections.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};
use undermesh_proxy::{EndpointStatus, LimitStatus, PodStatus, UpstreamStatus};

use super::{duration, section};

/// One destination of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DestinationStatus {
    /// The client, `namespace/name`.
    pub(crate) pod: String,
    /// As Istio calls it: `outbound|80|v2|cart.shop.svc.cluster.local`.
    pub(crate) destination: String,
    /// The DestinationRule that it follows; empty for none.
    pub(crate) rule: String,
    /// How many endpoints there are.
    pub(crate) endpoints: usize,
    /// Requests and connections of the pod that are under way there.
    pub(crate) active: u64,
    /// Connections of the pod for requests, those that wait for the next one included.
    pub(crate) connections: u64,
    /// Limits that are set.
    pub(crate) limits: Vec<LimitRow>,
    /// Endpoints that get nothing now.
    pub(crate) ejected: Vec<EjectedRow>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitRow {
    /// Its name in a DestinationRule.
    pub(crate) name: String,
    /// How much is in use.
    pub(crate) held: u32,
    /// How much may be.
    pub(crate) max: u32,
    /// No more is let through at the moment.
    pub(crate) reached: bool,
}

/// One endpoint that is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EjectedRow {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Why: `consecutive_5xx`, for example.
    pub(crate) cause: String,
    /// How often it was ejected so far.
    pub(crate) ejections: u64,
    /// Until it is used again; at the next `interval` after that.
    pub(crate) seconds_left: u64,
}

impl DestinationStatus {
    /// All destinations of a pod.
    pub(crate) fn of(pod: &PodStatus) -> Vec<Self> {
        pod.upstreams.iter().map(|upstream| Self::new(pod.pod.to_string(), upstream)).collect()
    }

    fn new(pod: String, upstream: &UpstreamStatus) -> Self {
        let all = || upstream.endpoints.iter();
        Self {
            pod,
            destination: upstream.cluster.clone(),
            rule: upstream.rule.clone().unwrap_or_default(),
            endpoints: upstream.endpoints.len(),
            active: all().map(|one| u64::from(one.active)).sum(),
            connections: all().map(|one| one.connections as u64).sum(),
            limits: upstream.limits.iter().filter_map(LimitRow::new).collect(),
            ejected: all().filter_map(EjectedRow::new).collect(),
        }
    }
}

impl LimitRow {
    fn new(limit: &LimitStatus) -> Option<Self> {
        let LimitStatus { name, held, max } = *limit;
        let max = max?;
        Some(Self { name: name.to_owned(), held, max, reached: held >= max })
    }
}

impl EjectedRow {
    fn new(endpoint: &EndpointStatus) -> Option<Self> {
        let ejected = endpoint.ejected.as_ref()?;
        Some(Self {
            address: endpoint.address,
            cause: ejected.cause.to_owned(),
            ejections: ejected.ejections,
            seconds_left: ejected.seconds_left,
        })
    }
}

/// Writes what there is to say: who is left out for all pods together, as they share that; limits and
/// connections by pod.
pub(super) fn write(f: &mut fmt::Formatter<'_>, all: &[DestinationStatus]) -> fmt::Result {
    let head = ["DESTINATION", "ENDPOINT", "CAUSE", "TIMES", "BACK IN", "RULE"];
    section(f, "Ejected endpoints", &head, ejected(all).into_iter())?;
    let limits = all.iter().flat_map(|one| one.limits.iter().map(|limit| limit_row(one, limit)));
    let head = ["POD", "DESTINATION", "LIMIT", "IN USE", "OF", ""];
    section(f, "Limits", &head, limits)?;
    let head = ["POD", "DESTINATION", "ENDPOINTS", "CONNECTIONS", "ACTIVE"];
    section(f, "Destinations", &head, all.iter().map(pool_row))
}

fn ejected(all: &[DestinationStatus]) -> Vec<Vec<String>> {
    let rows = all.iter().flat_map(|one| one.ejected.iter().map(move |ejected| (one, ejected)));
    let once: BTreeMap<_, _> =
        rows.map(|(one, ejected)| ((&one.destination, ejected.address), (one, ejected))).collect();
    let row = |(one, ejected): (&DestinationStatus, &EjectedRow)| {
        vec![
            one.destination.clone(),
            ejected.address.to_string(),
            ejected.cause.clone(),
            ejected.ejections.to_string(),
            duration(i64::try_from(ejected.seconds_left).unwrap_or(i64::MAX)),
            one.rule.clone(),
        ]
    };
    once.into_values().map(row).collect()
}

fn limit_row(one: &DestinationStatus, limit: &LimitRow) -> Vec<String> {
    let reached = if limit.reached { "REACHED" } else { "" };
    vec![
        one.pod.clone(),
        one.destination.clone(),
        limit.name.clone(),
        limit.held.to_string(),
        limit.max.to_string(),
        reached.to_owned(),
    ]
}

fn pool_row(one: &DestinationStatus) -> Vec<String> {
    let counts = [one.endpoints as u64, one.connections, one.active];
    let counts = counts.iter().map(ToString::to_string);
    [one.pod.clone(), one.destination.clone()].into_iter().chain(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page(Vec<DestinationStatus>);

    impl fmt::Display for Page {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, &self.0)
        }
    }

    fn destination(pod: &str) -> DestinationStatus {
        let limit = |name: &str, held, max| LimitRow {
            name: name.to_owned(),
            held,
            max,
            reached: held >= max,
        };
        DestinationStatus {
            pod: pod.to_owned(),
            destination: "outbound|80||orders".to_owned(),
            rule: "DestinationRule shop/orders".to_owned(),
            endpoints: 3,
            active: 7,
            connections: 8,
            limits: vec![limit("maxConnections", 8, 100), limit("http2MaxRequests", 7, 7)],
            ejected: vec![EjectedRow {
                address: SocketAddr::from(([10, 0, 0, 1], 8080)),
                cause: "consecutive_5xx".to_owned(),
                ejections: 2,
                seconds_left: 61,
            }],
        }
    }

    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn an_ejection_is_shown_once_for_all_pods_with_its_cause_and_its_end() {
        let mut other = destination("shop/b");
        // Asked a moment earlier.
        other.ejected[0].seconds_left += 1;
        let text = Page(vec![other, destination("shop/a")]).to_string();
        let row =
            "outbound|80||orders 10.0.0.1:8080 consecutive_5xx 2 1m 1s DestinationRule shop/orders";
        let row: Vec<&str> = row.split(' ').collect();
        assert_eq!(words(&text).iter().filter(|line| **line == row).count(), 1, "{text}");
    }

    #[test]
    fn limits_are_shown_for_each_pod_and_say_when_they_are_reached() {
        let text = Page(vec![destination("shop/a")]).to_string();
        for row in [
            vec!["shop/a", "outbound|80||orders", "maxConnections", "8", "100"],
            vec!["shop/a", "outbound|80||orders", "http2MaxRequests", "7", "7", "REACHED"],
            vec!["shop/a", "outbound|80||orders", "3", "8", "7"],
        ] {
            assert!(words(&text).contains(&row), "{row:?} is missing in\n{text}");
        }
    }

    #[test]
    fn nothing_is_said_where_there_is_nothing() {
        assert_eq!(Page(Vec::new()).to_string(), "");
        let quiet =
            DestinationStatus { limits: Vec::new(), ejected: Vec::new(), ..destination("shop/a") };
        let text = Page(vec![quiet]).to_string();
        assert!(!text.contains("Limits") && !text.contains("Ejected"), "{text}");
    }
}
