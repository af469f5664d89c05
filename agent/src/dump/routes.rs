//! The routes of requests and connections in a snapshot, service port by service port: what each asks for, in order, where
//! it leads, and which object says so.

mod text;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hyper::header::HeaderName;
use serde::{Deserialize, Serialize};
use undermesh_model::{
    ResourceRef,
    traffic::{ConnectionPool, L4Match, Millionths, OutlierDetection, PathRewrite, Retries},
};
use undermesh_proxy::explain as proxy;
use undermesh_snapshot::{
    ServicePortRoute, Snapshot,
    traffic::{
        ClusterSpec, CompiledRoute, Condition, HeaderEdits, L4Route, PortTraffic, RequestMatch,
        RouteAction, Target, Weighted,
    },
};

/// A port of a service for the clients of some namespaces. Field names are API (docs/reference/dump.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortRoutes {
    pub(super) object: Object,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) port_name: String,
    pub(super) addresses: Vec<String>,
    /// Namespaces.
    pub(super) clients: Vec<String>,
    pub(super) protocol: String,
    /// The first that matches.
    pub(super) requests: Vec<RequestRule>,
    /// The same of connections that carry no HTTP.
    pub(super) connections: Vec<ConnectionRule>,
    /// Where everything goes that no rule is about; requests do not, where there is a rule for any.
    pub(super) otherwise: Destination,
}

/// What says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestRule {
    pub(super) object: Object,
    /// Name or place of the rule in it.
    pub(super) rule: String,
    /// All have to hold; none for every request.
    pub(super) conditions: Vec<Condition>,
    pub(super) destinations: Vec<Lead>,
    /// In place of destinations: an answer of the mesh.
    pub(super) answer: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<RetryRow>,
    pub(super) headers: Vec<HeaderEdit>,
    /// Faults, copies, rewrites, CORS; in words.
    pub(super) also: Vec<String>,
}

/// A header that changes. Names and values stand apart: some are secrets, which bug reports take out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HeaderEdit {
    /// `request` or `response`.
    pub(super) of: String,
    /// `remove`, `set`, `add`.
    pub(super) does: String,
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RetryRow {
    pub(super) attempts: u32,
    pub(super) per_try_timeout: Option<String>,
    /// By Envoy's names.
    pub(super) on: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionRule {
    pub(super) object: Object,
    pub(super) matches: String,
    pub(super) destinations: Vec<Lead>,
}

/// A share of what a rule is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lead {
    pub(super) weight: u32,
    /// Of all of the rule.
    pub(super) percent: f64,
    /// Absent where what the object names cannot be used; then `status` is the answer.
    pub(super) destination: Option<Destination>,
    pub(super) status: Option<u16>,
    /// Those that change for this one alone.
    pub(super) headers: Vec<HeaderEdit>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Destination {
    /// As Istio and metrics call it.
    pub(super) name: String,
    /// The DestinationRule that it follows.
    pub(super) object: Option<Object>,
    pub(super) subset: String,
    pub(super) endpoints: usize,
    /// Names whose addresses are endpoints, too.
    pub(super) names: Vec<String>,
    /// What its rule says, in words.
    pub(super) policy: Vec<String>,
}

/// Rules, a port that has them, the clients and the addresses that they are the same for.
type Group<'a> = (&'a Arc<PortTraffic>, &'a ServicePortRoute, Vec<String>, Vec<String>);

impl PortRoutes {
    /// All of a snapshot, by name and port.
    pub(crate) fn of(snapshot: &Snapshot) -> Vec<Self> {
        let mut ports: BTreeMap<(&str, u16), Vec<(String, &ServicePortRoute)>> = BTreeMap::new();
        for (address, route) in &snapshot.services {
            let port = ports.entry((&route.host, route.port)).or_default();
            port.push((address.to_string(), route));
        }
        for (block, port, route) in snapshot.blocks.iter() {
            let ports = ports.entry((&route.host, route.port)).or_default();
            ports.push((format!("{block} port {port}"), route));
        }
        ports.into_values().flat_map(Self::of_port).collect()
    }

    /// Of the addresses of one port: what is the same for several is told once.
    fn of_port(routes: Vec<(String, &ServicePortRoute)>) -> Vec<Self> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (address, route) in routes {
            for (client, traffic) in &route.traffic {
                let is_same =
                    |known: &Arc<PortTraffic>| Arc::ptr_eq(known, traffic) || *known == *traffic;
                let place = groups.iter().position(|(known, ..)| is_same(known));
                let place = place.unwrap_or_else(|| {
                    groups.push((traffic, route, Vec::new(), Vec::new()));
                    groups.len() - 1
                });
                let (_, _, clients, addresses) = &mut groups[place];
                for (list, one) in [(clients, client), (addresses, &address)] {
                    if !list.contains(one) {
                        list.push(one.clone());
                    }
                }
            }
        }
        let rows = groups.into_iter().map(|(traffic, route, mut clients, mut addresses)| {
            clients.sort();
            addresses.sort();
            Self {
                object: Object::of(&route.origin),
                host: route.host.clone(),
                port: route.port,
                port_name: route.port_name.clone(),
                addresses,
                clients,
                protocol: format!("{:?}", traffic.protocol).to_lowercase(),
                requests: traffic
                    .http
                    .entries()
                    .map(|(m, route)| RequestRule::of(m, route))
                    .collect(),
                connections: traffic.l4.iter().map(ConnectionRule::of).collect(),
                otherwise: Destination::of(&traffic.default),
            }
        });
        rows.collect()
    }
}

impl Object {
    fn of(object: &ResourceRef) -> Self {
        let (namespace, name) = (object.namespace.clone(), object.name.clone());
        Self { kind: object.kind.to_owned(), namespace, name }
    }
}

impl RequestRule {
    fn of(matches: &RequestMatch, route: &CompiledRoute) -> Self {
        let (destinations, answer) = match &route.action {
            RouteAction::Forward(targets) => (Lead::all(targets), None),
            RouteAction::Redirect(redirect) => {
                let to = [&redirect.scheme, &redirect.authority].into_iter().flatten();
                let to: Vec<&str> = to.map(String::as_str).collect();
                let what = match to.is_empty() {
                    true => format!("a redirect with status {}", redirect.code),
                    false => {
                        format!("a redirect with status {} to {}", redirect.code, to.join("://"))
                    }
                };
                (Vec::new(), Some(what))
            }
            RouteAction::Direct(direct) => {
                (Vec::new(), Some(format!("an answer with status {}", direct.status)))
            }
        };
        Self {
            object: Object::of(&route.origin),
            rule: route.name.to_string(),
            conditions: matches.conditions(),
            destinations,
            answer,
            timeout: route.timeout.map(span),
            retries: route.retries.as_ref().filter(|it| it.attempts > 0).map(RetryRow::of),
            headers: edits(&route.headers),
            also: besides(route),
        }
    }
}

fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn percent(share: Millionths) -> f64 {
    f64::from(share.0) * 100.0 / f64::from(Millionths::ALL.0)
}

/// What a rule does to requests besides sending them on.
fn besides(route: &CompiledRoute) -> Vec<String> {
    let mut all = Vec::new();
    for fault in proxy::faults(route) {
        all.push(format!("{} for {}%", fault.what, fault.percent));
    }
    match &route.path {
        Some(PathRewrite::Full(path)) => all.push(format!("the path becomes {path}")),
        Some(PathRewrite::Matched(path)) => {
            all.push(format!("what was matched of the path becomes {path}"));
        }
        Some(PathRewrite::Regex { pattern, replacement }) => {
            all.push(format!("of the path, what matches {pattern} becomes {replacement}"));
        }
        None => {}
    }
    if let Some(authority) = &route.authority {
        all.push(format!(
            "the authority becomes {}",
            String::from_utf8_lossy(authority.as_bytes())
        ));
    }
    for (target, share) in &route.mirrors {
        let to = match target {
            Target::Cluster(spec) => spec.key.to_string(),
            Target::Unusable(_) => "a destination that cannot be used".to_owned(),
        };
        all.push(format!("a copy of {}% to {to}", percent(*share)));
    }
    if let Some(cors) = &route.cors {
        all.push(format!("CORS for {} patterns of origins", cors.origins.0.len()));
    }
    all
}

fn edits(edits: &HeaderEdits) -> Vec<HeaderEdit> {
    let edit = |of: &str, does: &str, name: &HeaderName, value: &[u8]| HeaderEdit {
        of: of.to_owned(),
        does: does.to_owned(),
        name: name.to_string(),
        value: String::from_utf8_lossy(value).into_owned(),
    };
    let mut all = Vec::new();
    let sides = [
        ("request", &edits.request_remove, &edits.request_set, &edits.request_add),
        ("response", &edits.response_remove, &edits.response_set, &edits.response_add),
    ];
    for (of, remove, set, add) in sides {
        all.extend(remove.iter().map(|name| edit(of, "remove", name, b"")));
        for (list, does) in [(set, "set"), (add, "add")] {
            let list = list.iter();
            all.extend(list.map(|(name, value)| edit(of, does, name, value.as_bytes())));
        }
    }
    all
}

impl RetryRow {
    fn of(retries: &Retries) -> Self {
        let on = retries.on.names();
        let per_try_timeout = retries.per_try_timeout.map(span);
        Self { attempts: retries.attempts, per_try_timeout, on }
    }
}

impl ConnectionRule {
    fn of(route: &L4Route) -> Self {
        let matches: Vec<String> = route.matches.iter().map(words).collect();
        Self {
            object: Object::of(&route.origin),
            matches: match matches.is_empty() {
                true => "every connection".to_owned(),
                false => matches.join("; or "),
            },
            destinations: Lead::all(&route.targets),
        }
    }
}

fn words(one: &L4Match) -> String {
    let mut all = Vec::new();
    if !one.sni_hosts.is_empty() {
        all.push(format!("server name is {}", one.sni_hosts.join(" or ")));
    }
    if !one.destinations.is_empty() {
        let blocks: Vec<String> = one.destinations.iter().map(ToString::to_string).collect();
        all.push(format!("address is in {}", blocks.join(" or ")));
    }
    let labels = one.source_labels.iter();
    all.extend(labels.map(|(name, value)| format!("the client's label {name} is {value}")));
    let namespace = one.source_namespace.iter();
    all.extend(namespace.map(|it| format!("the client's namespace is {it}")));
    if all.is_empty() { "every connection".to_owned() } else { all.join(", ") }
}

impl Lead {
    fn all(targets: &[Weighted]) -> Vec<Self> {
        let whole: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
        let leads = targets.iter().map(|Weighted { target, weight, headers }| {
            let (destination, status) = match target {
                Target::Cluster(spec) => (Some(Destination::of(spec)), None),
                Target::Unusable(status) => (None, Some(*status)),
            };
            let percent = f64::from(*weight) * 100.0 / whole.max(1) as f64;
            Self { weight: *weight, percent, destination, status, headers: edits(headers) }
        });
        leads.collect()
    }
}

impl Destination {
    fn of(spec: &ClusterSpec) -> Self {
        let mut names: Vec<String> = spec.dns.iter().map(|one| one.name.clone()).collect();
        if spec.dynamic.is_some() {
            names.push("whatever name is asked for".to_owned());
        }
        Self {
            name: spec.key.to_string(),
            object: spec.rule.as_ref().map(Object::of),
            subset: spec.key.subset.clone(),
            endpoints: spec.endpoints.len(),
            names,
            policy: policy(spec),
        }
    }
}

fn policy(spec: &ClusterSpec) -> Vec<String> {
    let settings = &spec.settings;
    let mut all = Vec::new();
    if let Some(hash) = &settings.balancer.hash {
        all.push(format!("balanced by a hash of {:?}", hash.key));
    } else if let Some(simple) = settings.balancer.simple {
        all.push(format!("balanced by {simple:?}"));
    }
    all.extend(limits(&settings.pool));
    all.extend(settings.outlier.as_ref().map(ejection));
    if let Some(tls) = &settings.tls {
        all.push(format!("TLS {:?} towards hosts outside the mesh", tls.mode));
    }
    all
}

fn limits(pool: &ConnectionPool) -> Vec<String> {
    let (tcp, http) = (&pool.tcp, &pool.http);
    let numbers = [
        (tcp.max_connections, "connections"),
        (http.max_requests, "requests at once"),
        (http.max_pending, "requests that wait"),
        (http.max_requests_per_connection, "requests over one connection"),
        (http.max_retries, "retries at once"),
        (http.max_concurrent_streams, "streams over one connection"),
    ];
    let times = [
        (tcp.connect_timeout, "to connect"),
        (tcp.max_connection_duration, "for a connection"),
        (tcp.idle_timeout, "for an idle connection"),
        (http.idle_timeout, "for an idle connection of HTTP"),
    ];
    let numbers =
        numbers.into_iter().filter_map(|(most, of)| Some(format!("at most {} {of}", most?)));
    let times = times.into_iter().filter_map(|(most, of)| Some(format!("{} {of}", span(most?))));
    numbers.chain(times).collect()
}

fn ejection(outlier: &OutlierDetection) -> String {
    let after = [
        (outlier.consecutive_5xx, "5xx"),
        (outlier.consecutive_gateway, "gateway errors"),
        (outlier.consecutive_local, "local errors"),
    ];
    let after: Vec<String> = after
        .into_iter()
        .filter_map(|(count, of)| Some(format!("{} {of}", count.filter(|count| *count > 0)?)))
        .collect();
    let mut text = "endpoints are ejected".to_owned();
    if !after.is_empty() {
        text += &format!(" after {} in a row", after.join(" or "));
    }
    if let Some(time) = outlier.base_ejection_time {
        text += &format!(", for {} at first", span(time));
    }
    if let Some(share) = outlier.max_ejection {
        text += &format!(", at most {}% of them", percent(share));
    }
    text
}
