//! Destinations of rules, made once for all who use them.

use std::{collections::HashMap, fmt, sync::Arc};

use undermesh_model::{
    ResourceRef,
    traffic::{ClientTls, ClusterKey, Resolution, SimpleBalancer, TlsMode},
};

use super::{
    backend_tls::BackendPolicies,
    destinations::{Destinations, Effective, Merged},
    hosts::{Host, HostPort, Hosts, Source},
    inventory::{Found, Inventory, Name},
    locality::{self, From},
    tls::{self, Secrets},
    view::{Labels, View},
};
use crate::traffic::{ClusterEndpoint, ClusterSpec, DnsEndpoint, Settings};

/// A destination as a rule names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'r> {
    pub(super) host: &'r str,
    pub(super) port: Option<u16>,
    pub(super) subset: Option<&'r str>,
    /// The port that was dialled: taken where none is named and the host has several.
    pub(super) dialled: u16,
}

/// Why there is no such destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Host,
    Port,
    Subset,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => {
                "there is no Service or ServiceEntry of this name that its clients may see"
            }
            Self::Port => "it has no such TCP port",
            Self::Subset => "no DestinationRule that its clients follow has this subset",
        })
    }
}

/// What a host's name stands for in a view. Two views for which all names stand for the same are
/// served alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Meaning<'a> {
    host: &'a ResourceRef,
    rule: Option<&'a ResourceRef>,
    view: String,
}

/// Destinations that were made so far.
pub(super) struct Clusters<'a> {
    pub(super) hosts: Hosts<'a>,
    destinations: Destinations<'a>,
    policies: BackendPolicies<'a>,
    pub(super) inventory: Inventory<'a>,
    secrets: &'a Secrets,
    made: HashMap<Arc<ClusterKey>, Arc<ClusterSpec>>,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(
        hosts: Hosts<'a>,
        destinations: Destinations<'a>,
        policies: BackendPolicies<'a>,
        inventory: Inventory<'a>,
        secrets: &'a Secrets,
    ) -> Self {
        Self { hosts, destinations, policies, inventory, secrets, made: HashMap::new() }
    }

    /// A destination that a rule names.
    pub(super) fn get(
        &mut self,
        wanted: Wanted<'_>,
        view: &View,
    ) -> Result<Arc<ClusterSpec>, Missing> {
        let host = self.hosts.resolve(wanted.host, &view.namespace).ok_or(Missing::Host)?.clone();
        let port = host.port(wanted.port, wanted.dialled).ok_or(Missing::Port)?;
        self.make(&host, &port, wanted.subset.unwrap_or_default(), view)
    }

    fn policy(&self, host: &Host<'_>, port: u16) -> Option<&'a ClientTls> {
        self.policies.of(host.service()?, port)
    }

    /// All of a host's port, whatever its name stands for elsewhere.
    pub(super) fn whole(
        &mut self,
        host: &Host<'a>,
        port: &HostPort<'_>,
        view: &View,
    ) -> Option<Arc<ClusterSpec>> {
        self.make(host, port, "", view).ok()
    }

    /// Whether a DestinationRule or a BackendTLSPolicy asks for more than the kernel does.
    pub(super) fn needs_proxy(&self, host: &Host<'a>, port: &HostPort<'_>, view: &View) -> bool {
        let effective = self.destinations.choose(host, view);
        let effective = effective.map(|rule| rule.effective(None, port.number)).unwrap_or_default();
        let mesh = effective.tls.is_some_and(|tls| tls.mode == TlsMode::IstioMutual);
        effective.needs_proxy()
            || self.policy(host, port.number).is_some()
            || mesh && self.has_strangers(host, port)
    }

    /// Whether the kernel would connect to an endpoint in clear.
    fn has_strangers(&self, host: &Host<'a>, port: &HostPort<'_>) -> bool {
        let found = self.inventory.of(host, port, &Labels::new(), true);
        !found.dns.is_empty() || found.known.iter().any(|one| one.workload.is_none())
    }

    /// What a name stands for.
    pub(super) fn meaning(&self, name: &str, view: &View) -> Option<Meaning<'a>> {
        let host = self.hosts.resolve(name, &view.namespace)?;
        let rule = self.destinations.choose(host, view);
        Some(Meaning {
            host: host.origin(),
            rule: rule.map(|rule| &rule.rule.origin),
            view: self.view_name(host, rule, view),
        })
    }

    fn make(
        &mut self,
        host: &Host<'a>,
        port: &HostPort<'_>,
        subset: &str,
        view: &View,
    ) -> Result<Arc<ClusterSpec>, Missing> {
        let rule = self.destinations.choose(host, view);
        let key = Arc::new(ClusterKey {
            subset: subset.to_owned(),
            view: self.view_name(host, rule, view),
            ..ClusterKey::new(&host.name, port.number)
        });
        if let Some(made) = self.made.get(&key) {
            return Ok(Arc::clone(made));
        }
        let spec = Arc::new(self.spec(Arc::clone(&key), host, port, rule, view)?);
        self.made.insert(key, Arc::clone(&spec));
        Ok(spec)
    }

    fn spec(
        &self,
        key: Arc<ClusterKey>,
        host: &Host<'a>,
        port: &HostPort<'_>,
        rule: Option<&Merged<'a>>,
        view: &View,
    ) -> Result<ClusterSpec, Missing> {
        let subset = match (key.subset.as_str(), rule) {
            ("", _) => None,
            (name, rule) => Some(rule.and_then(|rule| rule.subset(name)).ok_or(Missing::Subset)?),
        };
        let mut effective =
            rule.map(|rule| rule.effective(subset, port.number)).unwrap_or_default();
        effective.tls = effective.tls.or(self.policy(host, port.number));
        let none = Labels::new();
        let labels = subset.map_or(&none, |subset| &subset.labels);
        let balance = effective.balancer.and_then(|balancer| balancer.locality.as_ref());
        let found = self.inventory.of(host, port, labels, balance.is_some());
        let from = From { locality: &self.inventory.here, labels: &view.labels };
        let failover = effective.outlier.is_some();
        let mut all = found.known.clone();
        all.extend(found.dns.iter().map(|name| name.found.clone()));
        let arranged = locality::arrange(&all, from, balance, failover);
        let mut settings = settings(host, effective);
        if let Some(tls) = &mut settings.tls {
            tls::complete(tls, host, &key, &found);
            tls::fill_in(tls, &view.namespace, self.secrets);
        }
        settings.locality_shares = arranged.shares;
        let (of_known, of_names) = arranged.priorities.split_at(found.known.len());
        let endpoints = found.known.into_iter().zip(of_known);
        let names = found.dns.into_iter().zip(of_names);
        Ok(ClusterSpec {
            key,
            rule: rule.map(|rule| rule.rule.origin.clone()),
            protocol: port.protocol,
            endpoints: endpoints.filter_map(|(one, tier)| Some(endpoint(one, (*tier)?))).collect(),
            dns: names.filter_map(|(one, tier)| Some(dns_endpoint(one, (*tier)?))).collect(),
            dynamic: dynamic(host, port),
            settings,
        })
    }

    /// Names the view in keys of destinations: empty where everybody sees the same.
    fn view_name(&self, host: &Host<'_>, rule: Option<&Merged<'a>>, view: &View) -> String {
        let nobody = View::default();
        let general = self.hosts.resolve(&host.name, "");
        let same_host = general.is_some_and(|one| one.origin() == host.origin());
        let for_nobody = self.destinations.choose(host, &nobody);
        let same_rule = for_nobody.map(|rule| &rule.rule.name) == rule.map(|rule| &rule.rule.name);
        if view.labels.is_empty() || !rule.is_some_and(Merged::looks_at_clients) {
            let general = same_host && same_rule && !rule.is_some_and(Merged::has_credentials);
            return if general { String::new() } else { view.namespace.clone() };
        }
        let labels: Vec<_> =
            view.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        format!("{}?{}", view.namespace, labels.join("&"))
    }
}

/// The port of addresses that only a request tells.
fn dynamic(host: &Host<'_>, port: &HostPort<'_>) -> Option<u16> {
    match host.source {
        Source::Entry(entry) if entry.resolution == Resolution::DynamicDns => Some(port.number),
        _ => None,
    }
}

fn endpoint(found: Found<'_>, priority: u32) -> ClusterEndpoint {
    ClusterEndpoint {
        address: found.address,
        workload: found.workload,
        weight: found.weight,
        locality: found.locality,
        priority,
    }
}

fn dns_endpoint(name: Name<'_>, priority: u32) -> DnsEndpoint {
    let Name { name, one, found } = name;
    DnsEndpoint {
        name: name.trim_end_matches('.').to_owned(),
        port: found.address.port(),
        one,
        weight: found.weight,
        locality: found.locality,
        priority,
    }
}

fn settings(host: &Host<'_>, effective: Effective<'_>) -> Settings {
    let mut settings = Settings {
        balancer: effective.balancer.cloned().unwrap_or_default(),
        pool: effective.pool.cloned().unwrap_or_default(),
        outlier: effective.outlier.cloned(),
        tls: effective.tls.cloned(),
        ..Settings::default()
    };
    if let Source::Service(_) = host.source
        && settings.balancer.simple == Some(SimpleBalancer::Passthrough)
    {
        // What clients dial is the Service's own address. Nobody is there: what would be dialled is
        // whichever pod the cluster puts in its place, and in plaintext.
        settings.balancer.simple = None;
    }
    if let Source::Entry(entry) = host.source
        && entry.resolution == Resolution::None
    {
        settings.balancer.simple = Some(SimpleBalancer::Passthrough);
    }
    settings
}
