//! Routes and what they name in other objects: Services, their ports, and grants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use undermesh_model::{
    Cluster, NamespacedName, Service,
    traffic::{Backend, BackendRef, HttpAction, Parent, RouteSet, Scope},
};

use super::{Grant, RouteDraft, backends::Reference, parents::ParentRef};
use crate::{objects::Placed, report::Report};

/// Adds the routes to the cluster, once its Services are there. `unread` are Services that exist
/// and cannot be sent to.
pub(crate) fn connect(
    drafts: Vec<Placed<RouteDraft>>,
    grants: &[Placed<Grant>],
    unread: &BTreeSet<NamespacedName>,
    cluster: &mut Cluster,
    report: &mut Report,
) {
    let mut granted: HashMap<&str, Vec<&Grant>> = HashMap::new();
    for grant in grants {
        granted.entry(&grant.origin.namespace).or_default().push(&grant.value);
    }
    let world = World { services: &cluster.services, granted, unread };
    let drafts = drafts.into_iter();
    let sets: Vec<_> = drafts.flat_map(|draft| world.route(draft, report)).collect();
    cluster.routes.extend(sets);
}

struct World<'a> {
    services: &'a BTreeMap<NamespacedName, Service>,
    /// By the namespace of the Services.
    granted: HashMap<&'a str, Vec<&'a Grant>>,
    unread: &'a BTreeSet<NamespacedName>,
}

impl World<'_> {
    /// One set for the Services of the route's namespace (a producer's route, for all clients), one
    /// for those of others (a consumer's, for clients of its own namespace).
    fn route(&self, draft: Placed<RouteDraft>, report: &mut Report) -> Vec<RouteSet> {
        let subject = draft.subject();
        let RouteDraft { mut routes, parents, references } = draft.value;
        let own: BTreeSet<_> = parents.iter().map(|parent| parent.value.service.clone()).collect();
        let found = parents.iter().filter_map(|parent| self.parent(parent, report));
        let found: BTreeSet<Parent> = found.collect();
        let unusable = self.unusable(&references, &own, report);
        replace(&mut routes, &unusable);
        let namespace = &subject.origin.namespace;
        let is_producer = |parent: &Parent| match parent {
            Parent::Service { service, .. } => service.namespace == *namespace,
            Parent::Host(_) => false,
        };
        let (produced, consumed): (Vec<_>, Vec<_>) = found.into_iter().partition(is_producer);
        let consumers = Scope::Namespaces([namespace.clone()].into());
        [(produced, Scope::Everywhere), (consumed, consumers)]
            .into_iter()
            .filter(|(parents, _)| !parents.is_empty())
            .map(|(parents, scope)| RouteSet { parents, scope, ..routes.clone() })
            .collect()
    }

    /// The parent, if there is such a Service and port.
    fn parent(&self, placed: &Placed<ParentRef>, report: &mut Report) -> Option<Parent> {
        let ParentRef { service, port, section } = &placed.value;
        let found = match self.services.get(service) {
            None => Err(self.absent(service)),
            // GEP-1294: clients of a headless Service dial its pods, so nothing is routed.
            Some(found) if found.headless => {
                Err(format!("Service {service} is headless, and has no traffic of its own"))
            }
            Some(found) => named_port(found, *port, section.as_deref()),
        };
        match found {
            Ok(port) => Some(Parent::Service { service: service.clone(), port }),
            Err(message) => {
                let remedy = "correct the parentRef; until then it is ignored";
                report.warning(&placed.subject(), &[], "unknown-parent", message, remedy);
                None
            }
        }
    }

    fn absent(&self, service: &NamespacedName) -> String {
        if self.unread.contains(service) {
            format!("Service {service} is of a type that is not supported")
        } else {
            format!("Service {service} does not exist")
        }
    }

    /// The backends that cannot be used, and why.
    fn unusable(
        &self,
        references: &[Placed<Reference>],
        own: &BTreeSet<NamespacedName>,
        report: &mut Report,
    ) -> Vec<(BackendRef, String)> {
        let mut unusable = Vec::new();
        for placed in references {
            let Reference { service, port } = &placed.value;
            let (code, reason, remedy) = if !self.is_permitted(placed, own) {
                let reason = format!("Service {service}: no ReferenceGrant permits it");
                let remedy = "write a ReferenceGrant in the Service's namespace";
                ("reference-not-permitted", reason, remedy)
            } else if let Some(found) = self.services.get(service) {
                if found.ports.iter().any(|one| one.port == *port) {
                    continue;
                }
                let reason = format!("Service {service} has no port {port}");
                ("backend-not-found", reason, "write a port of the Service")
            } else {
                (
                    "backend-not-found",
                    self.absent(service),
                    "write the Service, or correct the name",
                )
            };
            report.warning(&placed.subject(), &[], code, reason.clone(), remedy);
            unusable.push((placed.value.backend(), reason));
        }
        unusable
    }

    /// A grant is needed across namespaces, but not to send requests on to the Service that they were
    /// for: a consumer's route could do nothing without that.
    fn is_permitted(&self, placed: &Placed<Reference>, own: &BTreeSet<NamespacedName>) -> bool {
        let service = &placed.value.service;
        let mut grants = self.granted.get(service.namespace.as_str()).into_iter().flatten();
        service.namespace == placed.origin.namespace
            || own.contains(service)
            || grants.any(|grant| grant.permits(&placed.origin, service))
    }
}

/// The number of the port; `None` for all. Where name and number are given, both have to fit.
fn named_port(
    service: &Service,
    port: Option<u16>,
    section: Option<&str>,
) -> Result<Option<u16>, String> {
    if port.is_none() && section.is_none() {
        return Ok(None);
    }
    let mut ports = service.ports.iter();
    let found = ports.find(|one| {
        port.is_none_or(|port| one.port == port)
            && section.is_none_or(|section| one.name == section)
    });
    found.map(|found| Some(found.port)).ok_or_else(|| {
        let by_number = port.map(|port| format!(" {port}")).unwrap_or_default();
        let by_name = section.map(|section| format!(" named {section:?}")).unwrap_or_default();
        format!("Service {} has no port{by_number}{by_name}", service.name)
    })
}

/// Puts the reasons in the place of backends; copies are not sent to what cannot be used.
fn replace(routes: &mut RouteSet, unusable: &[(BackendRef, String)]) {
    let reason = |to: &BackendRef| {
        unusable.iter().find(|(other, _)| other == to).map(|(_, reason)| reason.clone())
    };
    let correct = |backends: &mut Vec<Backend>| {
        for backend in backends {
            if let Some(reason) = reason(&backend.to) {
                backend.to = BackendRef::Invalid(reason);
            }
        }
    };
    for rule in &mut routes.http {
        rule.mirrors.retain(|mirror| reason(&mirror.to).is_none());
        if let HttpAction::Forward(backends) = &mut rule.action {
            correct(backends);
        }
    }
    for rule in routes.tls.iter_mut().chain(&mut routes.tcp) {
        correct(&mut rule.backends);
    }
}
