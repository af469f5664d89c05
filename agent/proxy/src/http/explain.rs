//! The steps of requests, and of connections that rules are about, asked beforehand ([`crate::explain`]).

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::{ResourceRef, traffic::Millionths};
use undermesh_snapshot::{
    Snapshot, WorkloadInfo,
    traffic::{
        Client, ClusterSpec, CompiledRoute, L4Route, Matched, PortTraffic, RouteAction, Target,
    },
};

use super::{cors, dial, front::is_about_requests, local_reply::LocalReply, redirect, way};
use crate::{
    error::Failure,
    explain::{Asked, Reached, Refused},
    grpc::http_status,
    upstream::{self, Pick, Refusal, hash},
};

/// The rule that a request goes by, and the others.
#[derive(Clone, Debug)]
pub struct RequestRoute {
    /// The rule; `None` where there are none, and it goes where everything goes.
    pub winner: Option<Arc<CompiledRoute>>,
    /// How many bytes of the path the match was about.
    pub path_len: usize,
    /// The other rules, and why each of them is not it.
    pub losers: Vec<(Arc<CompiledRoute>, String)>,
    /// No rule is about it.
    pub refused: Option<Refused>,
}

/// Whether a port may carry requests at all.
pub fn carries_requests(traffic: &PortTraffic) -> bool {
    is_about_requests(traffic)
}

/// Finds the rule of a request.
pub fn route_request(traffic: &PortTraffic, client: &WorkloadInfo, asked: &Asked) -> RequestRoute {
    let (client, view) = (as_client(client), asked.0.view());
    let (found, refused) = match way::find(traffic, &client, &view) {
        Ok(found) => (found, None),
        Err(reply) => (None, Some(Refused::from(reply))),
    };
    let won = found.as_ref().map(|matched| matched.index);
    let winner = found.as_ref().map(|Matched { route, .. }| Arc::clone(route));
    let mut losers: Vec<(Arc<CompiledRoute>, String)> = Vec::new();
    for (index, (alternative, route)) in traffic.http.entries().enumerate() {
        if winner.as_ref().is_some_and(|winner| Arc::ptr_eq(winner, route)) {
            continue;
        }
        let why = match alternative.unmet(&client, &view) {
            None if won.is_some_and(|won| won < index) => "it matches, and comes later".to_owned(),
            // Not reached: an alternative that matches wins, or another before it has.
            None => "it matches".to_owned(),
            Some(unmet) => format!("{unmet} does not match"),
        };
        match losers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, route)) {
            Some((_, known)) if alternative.matches(&client, &view) => *known = why,
            Some(_) => {}
            None => losers.push((Arc::clone(route), why)),
        }
    }
    let path_len = found.map_or(0, |matched| matched.path_len);
    RequestRoute { winner, path_len, losers, refused }
}

fn as_client(workload: &WorkloadInfo) -> Client<'_> {
    Client { namespace: &workload.name.namespace, labels: &workload.labels }
}

/// What becomes of a request by its rule.
#[derive(Clone, Debug)]
pub enum Led {
    /// It goes to this destination.
    Forwarded(Arc<ClusterSpec>),
    /// It is answered, or refused, right here.
    Answered(Answer),
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Why: the code that logs have.
    pub reason: &'static str,
    /// Nobody is served by it.
    pub refuses: bool,
}

/// Where a rule leads, each way with its share. Targets without one are never chosen.
pub fn led(
    route: &CompiledRoute,
    path_len: usize,
    asked: &Asked,
    dialled: SocketAddr,
) -> Vec<(Led, u32)> {
    let head = &asked.0;
    if let Some(Err(reply)) = route.cors.as_ref().map(|rule| cors::judge(rule, head)) {
        return vec![(Led::Answered(answer(&reply, false)), 1)];
    }
    match &route.action {
        RouteAction::Forward(targets) => {
            let mut led = Vec::new();
            let chosen = targets.iter().filter(|target| target.weight > 0);
            for target in chosen {
                led.push(match &target.target {
                    Target::Cluster(spec) => (Led::Forwarded(Arc::clone(spec)), target.weight),
                    nowhere => {
                        let reply = way::unusable(nowhere);
                        (Led::Answered(answer(&reply, true)), target.weight)
                    }
                });
            }
            if led.is_empty()
                && let Err(reply) = way::choose(targets)
            {
                led.push((Led::Answered(answer(&reply, true)), 1));
            }
            led
        }
        RouteAction::Redirect(rule) => {
            let reply = redirect::redirect(rule, head, path_len, dialled.port());
            vec![(Led::Answered(answer(&reply, false)), 1)]
        }
        RouteAction::Direct(rule) => {
            let reply = redirect::direct(rule);
            vec![(Led::Answered(answer(&reply, false)), 1)]
        }
    }
}

fn answer(reply: &LocalReply, refuses: bool) -> Answer {
    Answer { status: reply.status.as_u16(), reason: reply.reason, refuses }
}

/// An error that a rule injects.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectedFault {
    /// What.
    pub what: String,
    /// Into which share of requests, in percent.
    pub percent: f64,
    /// It is an answer with this status; else a delay.
    pub status: Option<u16>,
}

/// Errors that a rule injects.
pub fn faults(route: &CompiledRoute) -> Vec<InjectedFault> {
    let percent = |share: Millionths| f64::from(share.0) * 100.0 / f64::from(Millionths::ALL.0);
    let mut faults = Vec::new();
    let Some(fault) = &route.fault else { return faults };
    if let Some(delay) = &fault.delay {
        let what = format!("a delay of {:?}", delay.time);
        faults.push(InjectedFault { what, percent: percent(delay.share), status: None });
    }
    if let Some((status, share)) = fault.abort {
        let what = format!("an answer with status {status}");
        faults.push(InjectedFault { what, percent: percent(share), status: Some(status) });
    }
    if let Some((status, share)) = fault.grpc_abort {
        let (what, http) = (format!("an answer with gRPC status {status}"), http_status(status));
        faults.push(InjectedFault { what, percent: percent(share), status: Some(http.as_u16()) });
    }
    faults
}

/// The rule that a connection goes by which is not looked into, and where it leads.
#[derive(Clone, Debug)]
pub struct ConnectionRoute {
    /// The rule; `None` where none is about it, and it goes where everything goes.
    pub winner: Option<ResourceRef>,
    /// Rules that come later or are about other connections.
    pub losers: Vec<(ResourceRef, &'static str)>,
    /// Destinations, each with its share; `None` for one that cannot be used.
    pub targets: Vec<(Option<Arc<ClusterSpec>>, u32)>,
}

/// Finds the rule of a connection, by the name that its TLS asks for if there is one.
pub fn route_connection(
    traffic: &PortTraffic,
    client: &WorkloadInfo,
    dialled: SocketAddr,
    server_name: Option<&str>,
) -> ConnectionRoute {
    let won = traffic.l4_route(server_name, dialled.ip(), &as_client(client));
    let place = won.and_then(|won| traffic.l4.iter().position(|one| std::ptr::eq(one, won)));
    let why = |index: usize| match place {
        Some(won) if index > won => "an earlier one matches",
        _ => "it is about other connections",
    };
    let others = traffic.l4.iter().enumerate().filter(|(index, _)| Some(*index) != place);
    let losers = others.map(|(index, route)| (route.origin.clone(), why(index))).collect();
    let targets = match won {
        None => vec![(Some(Arc::clone(&traffic.default)), 1)],
        Some(route) => targets_of(route),
    };
    ConnectionRoute { winner: won.map(|route| route.origin.clone()), losers, targets }
}

fn targets_of(route: &L4Route) -> Vec<(Option<Arc<ClusterSpec>>, u32)> {
    let chosen = route.targets.iter().filter(|target| target.weight > 0);
    let target = |target: &Target| match target {
        Target::Cluster(spec) => Some(Arc::clone(spec)),
        Target::Unusable(_) => None,
    };
    chosen.map(|one| (target(&one.target), one.weight)).collect()
}

/// The endpoints of a destination.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// In the order of the configuration.
    pub all: Vec<Candidate>,
    /// Names whose addresses are endpoints as well, once they are asked for.
    pub names: Vec<String>,
    /// Why none of them may be chosen.
    pub refused: Option<Refused>,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it is, and how it is reached.
    pub reached: Reached,
    /// Its share.
    pub weight: u32,
    /// Its tier.
    pub priority: u32,
    /// It is one of those that are chosen from.
    pub chosen: bool,
    /// Ejected ones are chosen from as well, for want of healthy ones.
    pub panic: bool,
}

/// Who would be chosen from, for a request, or for a connection where there is none. `ejected` are those that are left
/// out for now.
pub fn candidates(
    snapshot: &Snapshot,
    spec: &ClusterSpec,
    (client, dialled): (SocketAddr, SocketAddr),
    asked: Option<&Asked>,
    ejected: &[SocketAddr],
) -> Candidates {
    let mut names: Vec<String> = spec.dns.iter().map(|one| one.name.clone()).collect();
    if spec.dynamic.is_some() {
        names.push(spec.key.host.clone());
    }
    let refusal = |refused: Refused| Candidates {
        all: Vec::new(),
        names: Vec::new(),
        refused: Some(refused),
    };
    if spec.is_black_hole() {
        return refusal(match asked {
            Some(_) => LocalReply::not_registered().into(),
            None => Refused::from(&Failure::NotRegistered { dialled }),
        });
    }
    let rule = spec.settings.balancer.hash.as_ref().map(|rule| &rule.key);
    let hash = match (rule, asked) {
        (Some(rule), Some(asked)) => hash::key(rule, &asked.0.view(), client.ip()).hash,
        _ => None,
    };
    let pick = Pick { hash, client: client.ip(), dialled, tried: &[], leave_tiers_of: &[] };
    let prospects = match upstream::prospects(spec, ejected, &pick) {
        Ok(prospects) => prospects,
        Err(refused) => {
            let none = refused == Refusal::NoEndpoints;
            return refusal(match asked {
                Some(_) => LocalReply::no_healthy_upstream(none).into(),
                None => Refused::from(&Failure::NoEndpoints { dialled }),
            });
        }
    };
    let candidate = |prospect: upstream::Prospect| Candidate {
        reached: dial::target_in(snapshot, &prospect.endpoint).into(),
        weight: prospect.endpoint.weight,
        priority: prospect.endpoint.priority,
        chosen: prospect.chosen,
        panic: prospect.panic,
    };
    Candidates { all: prospects.into_iter().map(candidate).collect(), names, refused: None }
}
