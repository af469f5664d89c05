//! What rules make of service ports, for this node's clients: who wins, what it leads to, and whether
//! the proxy has to look at all.

mod authorizers;
mod backend_tls;
mod checks;
mod clusters;
mod contest;
mod destinations;
mod entries;
mod findings;
mod hosts;
mod http;
mod inventory;
mod l4;
mod locality;
mod protocol;
mod tls;
mod together;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use undermesh_model::{
    Cluster, Diagnostic, ResourceRef, Service, ServicePort,
    traffic::{BackendRef, HttpAction, RouteSet},
};

pub(super) use self::entries::add_entries;
use self::{
    backend_tls::BackendPolicies,
    clusters::{Clusters, Meaning},
    contest::{Contest, Winners},
    destinations::Destinations,
    findings::Findings,
    hosts::{Host, HostPort, Hosts},
    http::{Alternatives, Workshop},
    inventory::Inventory,
    together::{Rest, for_each_view, together},
    view::{View, views},
};
use super::{endpoints::Slices, workloads::Workloads};
use crate::{
    Options, OutboundPolicy,
    traffic::{AppProtocol, ClusterSpec, HostPattern, L4Route, PortTraffic},
};

/// What becomes of a port's connections, by client namespace.
pub(super) type ByClient = BTreeMap<String, Arc<PortTraffic>>;

/// All rules, for all clients of this node.
pub(super) struct Traffic<'a> {
    clients: BTreeMap<String, Vec<View>>,
    contest: Contest<'a>,
    clusters: Clusters<'a>,
    outbound_policy: OutboundPolicy,
    findings: Findings,
}

/// A host's port, as far as it is looked at on its own.
#[derive(Clone, Debug)]
struct Part {
    origin: ResourceRef,
    host: HostPattern,
    protocol: AppProtocol,
    http: Alternatives,
    l4: Vec<L4Route>,
    default: Arc<ClusterSpec>,
}

/// A host's port, and whose routes hold there.
type Contested<'h, 'a> = (&'h Host<'a>, &'h HostPort<'a>, Winners<'a>);

/// All that a part depends on besides the port: for views with the same, it is the same.
type Signature<'a> = (Vec<usize>, Vec<usize>, BTreeMap<String, Option<Meaning<'a>>>);

impl<'a> Traffic<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        options: &'a Options,
        workloads: &'a Workloads,
        slices: &'a Slices<'a>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let hosts = Hosts::new(cluster);
        let mut findings = Findings::default();
        checks::routes(&cluster.routes, &hosts, &mut findings);
        checks::destination_rules(cluster, &hosts, &mut findings);
        let destinations = Destinations::new(cluster, &options.root_namespace, diagnostics);
        let policies = BackendPolicies::new(cluster, diagnostics);
        let inventory = Inventory::new(cluster, options, &workloads.by_address, slices);
        Self {
            clients: views(cluster, &workloads.local),
            contest: Contest::new(&cluster.routes),
            clusters: Clusters::new(hosts, destinations, policies, inventory, &cluster.tls_secrets),
            outbound_policy: options.outbound_policy,
            findings,
        }
    }

    /// What rules make of a port of a Service.
    pub(super) fn of_service(&mut self, service: &'a Service, number: u16) -> ByClient {
        let host = Host::of_service(service);
        let Some(port) = host.port(Some(number), number) else { return ByClient::new() };
        self.of(&[(host, port)], service.l7, None)
    }

    /// What rules make of hosts that share an address and a port. `always`: even where no rule is
    /// about any of them. `rest`: where connections go that are for none of them, if some may be.
    fn of(
        &mut self,
        hosts: &[(Host<'a>, HostPort<'a>)],
        always: bool,
        rest: Option<&Rest>,
    ) -> ByClient {
        let mut known: BTreeMap<Vec<Signature<'a>>, Arc<PortTraffic>> = BTreeMap::new();
        let mut found = ByClient::new();
        for (namespace, views) in self.clients.clone() {
            let contested = self.contested(hosts, &namespace);
            let asked = contested.iter().any(|(host, port, won)| {
                let needs = |view| self.clusters.needs_proxy(host, port, view);
                always || !won.is_empty() || views.iter().any(needs)
            });
            if !asked {
                continue;
            }
            let mut signatures: Vec<Signature<'a>> = Vec::new();
            for view in &views {
                let each = contested.iter().map(|(host, _, won)| self.signature(host, won, view));
                signatures.extend(each);
            }
            let made = match known.get(&signatures) {
                Some(made) => Arc::clone(made),
                None => {
                    let Some(made) = self.compile(&contested, &views, rest) else { continue };
                    let made = Arc::new(made);
                    known.insert(signatures, Arc::clone(&made));
                    made
                }
            };
            found.insert(namespace, made);
        }
        found
    }

    /// The hosts that clients of a namespace see, with those whose routes hold there.
    fn contested<'h>(
        &mut self,
        hosts: &'h [(Host<'a>, HostPort<'a>)],
        namespace: &str,
    ) -> Vec<Contested<'h, 'a>> {
        let visible = hosts.iter().filter(|(host, _)| host.is_visible(namespace));
        let contested = visible.map(|(host, port)| {
            let won = self.contest.winners(host, port, namespace, &mut self.findings);
            (host, port, won)
        });
        contested.collect()
    }

    fn signature(&self, host: &Host<'a>, won: &Winners<'a>, view: &View) -> Signature<'a> {
        let mut names = BTreeSet::from([host.name.as_str()]);
        for set in won.http.iter().chain(&won.l4) {
            names.extend(destinations_of(set));
        }
        let meanings = names.into_iter();
        let meanings = meanings.map(|name| (name.to_owned(), self.clusters.meaning(name, view)));
        (won.indices.0.clone(), won.indices.1.clone(), meanings.collect())
    }

    /// Compiles a port for all views of a namespace.
    fn compile(
        &mut self,
        hosts: &[Contested<'_, 'a>],
        views: &[View],
        rest: Option<&Rest>,
    ) -> Option<PortTraffic> {
        let mut compiled = Vec::new();
        for view in views {
            let parts =
                hosts.iter().filter_map(|(host, port, won)| self.part(host, port, won, view));
            compiled.push((view, together(parts.collect(), rest)?));
        }
        let (_, base) = compiled.last()?;
        if compiled.iter().all(|(_, one)| one == base) {
            return compiled.pop().map(|(_, one)| one);
        }
        for_each_view(compiled)
    }

    fn part(
        &mut self,
        host: &Host<'a>,
        port: &HostPort<'a>,
        won: &Winners<'a>,
        view: &View,
    ) -> Option<Part> {
        let default = self.clusters.whole(host, port, view)?;
        let mut workshop = Workshop {
            clusters: &mut self.clusters,
            findings: &mut self.findings,
            view,
            host: &host.name,
            port: port.number,
        };
        let http = workshop.http(&won.http);
        let l4 = workshop.l4(&won.l4);
        let protocol = won.protocol().unwrap_or(port.protocol);
        let origin = host.origin().clone();
        Some(Part { origin, host: HostPattern::new(&host.name), protocol, http, l4, default })
    }

    /// Where connections go that are for no host of a port.
    fn rest(&self, port: u16) -> Rest {
        Rest::new(port, self.outbound_policy)
    }

    /// Says what was found on the way.
    pub(super) fn report(self, diagnostics: &mut Vec<Diagnostic>) {
        self.findings.report(self.clients.len(), diagnostics);
    }
}

/// Whether a Service says of its port that it carries no requests.
pub(super) fn says_opaque(port: &ServicePort) -> bool {
    let speaks = protocol::of_service(&port.name, port.app_protocol.as_deref(), port.port);
    matches!(speaks, AppProtocol::Tcp | AppProtocol::Tls)
}

/// Hosts that an object's routes lead to.
fn destinations_of(set: &RouteSet) -> impl Iterator<Item = &str> {
    let forwarded = set.http.iter().flat_map(|rule| match &rule.action {
        HttpAction::Forward(backends) => backends.as_slice(),
        HttpAction::Redirect(_) | HttpAction::Direct(_) => &[],
    });
    let mirrored = set.http.iter().flat_map(|rule| &rule.mirrors).map(|mirror| &mirror.to);
    let l4 = set.tls.iter().chain(&set.tcp).flat_map(|rule| &rule.backends);
    forwarded.chain(l4).map(|backend| &backend.to).chain(mirrored).filter_map(|to| match to {
        BackendRef::Host { host, .. } => Some(host.as_str()),
        BackendRef::Invalid(_) => None,
    })
}

#[cfg(test)]
mod tests;
