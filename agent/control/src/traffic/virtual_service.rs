//! VirtualService: what becomes of requests and connections to hosts.
//!
//! Source: Istio, `pkg/config/validation`, for what is refused; `pilot/pkg/model/virtualservice.go`,
//! for delegates.

mod actions;
mod cors;
mod delegates;
mod destinations;
mod faults;
mod findings;
mod headers;
mod hosts;
mod known;
mod l4;
mod matches;
mod retries;
mod rules;
mod shapes;
mod unreachable;

pub(crate) use delegates::resolve;
pub(crate) use shapes::VirtualService;

use undermesh_model::{
    NamespacedName,
    traffic::{Dialect, RouteSet},
};

use super::common;
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};
use findings::{Findings, Path};
use rules::Rule;
use shapes::Spec;

/// A VirtualService by itself: its rules may end in other objects.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Everything but the rules for requests. Without parents it is one that others delegate to.
    set: RouteSet,
    http: Vec<Rule>,
}

/// Reads a VirtualService; `None` where it is for gateways alone.
pub(crate) fn virtual_service(
    object: &VirtualService,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<Draft>> {
    fields::check(known::KNOWN, subject, report);
    let VirtualService { metadata, spec } = object;
    let precedence = common::precedence(metadata, subject, report);
    let namespace = &subject.origin.namespace;
    let mut findings = Findings::new(subject, report);
    check_parts(&mut findings, spec);
    hosts::check_scope(&mut findings, &spec.export_to);
    let for_mesh = matches::for_mesh(&mut findings, &Path::root("gateways"), &spec.gateways);
    let is_delegate = spec.hosts.is_empty();
    let set = RouteSet {
        origin: subject.origin.clone(),
        name: NamespacedName::new(namespace, &subject.origin.name),
        dialect: Dialect::Istio,
        precedence,
        created: common::created(metadata),
        scope: common::scope(&spec.export_to, namespace),
        parents: hosts::parents(&mut findings, &spec.hosts, for_mesh),
        http: Vec::new(),
        tls: l4::tls(&mut findings, &spec.tls, &spec.hosts),
        tcp: l4::tcp(&mut findings, &spec.tcp),
    };
    let http = rules::http(&mut findings, &spec.http, is_delegate);
    unreachable::report(&mut findings, &spec.http);
    if !for_mesh {
        let what = "the object is for gateways, and clients in the mesh do not see it";
        let remedy = "write mesh among the gateways where it is for them, too";
        findings.inform(&Path::root("gateways"), "not-for-mesh", what, remedy);
        return None;
    }
    Some(Placed::new(Draft { set, http }, subject))
}

fn check_parts(findings: &mut Findings<'_>, spec: &Spec) {
    let Spec { hosts, gateways, http, tls, tcp, .. } = spec;
    if http.is_empty() && tls.is_empty() && tcp.is_empty() {
        findings.refuse(&Path::spec(), "has no rules", "write http, tls or tcp");
    }
    if !hosts.is_empty() {
        return;
    }
    let parts =
        [("gateways", gateways.is_empty()), ("tls", tls.is_empty()), ("tcp", tcp.is_empty())];
    for (part, _) in parts.iter().filter(|(_, is_empty)| !is_empty) {
        let what = "an object without hosts, which others delegate to, cannot have it";
        findings.refuse(&Path::root(part), what, "write hosts, or leave it out");
    }
}

#[cfg(test)]
mod tests;
