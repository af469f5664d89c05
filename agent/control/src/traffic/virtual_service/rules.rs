//! Rules of `http`.

use undermesh_model::{
    NamespacedName, SourcePosition,
    traffic::{HttpAction, HttpRule},
};

use super::{
    actions, cors, destinations, faults,
    findings::{Findings, Path},
    headers, matches, retries, shapes,
};

/// A rule, perhaps one whose end is in another object.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(super) read: HttpRule,
    pub(super) delegate: Option<Reference>,
}

/// Names the VirtualService that goes on.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) to: NamespacedName,
    pub(super) position: Option<SourcePosition>,
}

/// The rules that are for clients in the mesh, in their order. `is_delegate`: the object has no
/// hosts of its own.
pub(super) fn http(
    findings: &mut Findings<'_>,
    routes: &[shapes::HttpRoute],
    is_delegate: bool,
) -> Vec<Rule> {
    let at = Path::root("http");
    let mut read = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let at = at.item(index);
        conflicts(findings, &at, route, is_delegate);
        read.extend(rule(findings, &at, route));
    }
    read
}

fn rule(findings: &mut Findings<'_>, at: &Path, route: &shapes::HttpRoute) -> Option<Rule> {
    headers::check_authority(findings, at, route.rewrite.as_ref(), &route.headers);
    let matches = matches::http(findings, &at.field("match"), &route.matches);
    let timeout = route.timeout.as_ref();
    let retries = route.retries.as_ref();
    let fault = route.fault.as_ref();
    let cors = route.cors_policy.as_ref();
    let rewrite = route.rewrite.as_ref();
    let read = HttpRule {
        name: route.name.clone(),
        matches: Vec::new(),
        action: action(findings, at, route),
        rewrite: rewrite
            .map(|shape| actions::rewrite(findings, &at.field("rewrite"), shape))
            .unwrap_or_default(),
        headers: headers::operations(findings, &at.field("headers"), &route.headers),
        timeout: timeout.and_then(|text| findings.duration(&at.field("timeout"), text)),
        retries: retries.map(|shape| retries::retries(findings, &at.field("retries"), shape)),
        fault: fault.map(|shape| faults::fault(findings, &at.field("fault"), shape)),
        mirrors: faults::mirrors(findings, at, route),
        cors: cors.map(|shape| cors::cors(findings, &at.field("corsPolicy"), shape)),
    };
    let delegate = route.delegate.as_ref().map(|shape| reference(findings, at, shape));
    matches.map(|matches| Rule { read: HttpRule { matches, ..read }, delegate })
}

fn action(findings: &mut Findings<'_>, at: &Path, route: &shapes::HttpRoute) -> HttpAction {
    if let Some(shape) = &route.redirect {
        return HttpAction::Redirect(actions::redirect(findings, &at.field("redirect"), shape));
    }
    if let Some(shape) = &route.direct_response {
        let at = at.field("directResponse");
        return HttpAction::Direct(actions::direct(findings, &at, shape));
    }
    HttpAction::Forward(destinations::backends(findings, &at.field("route"), &route.route))
}

fn reference(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Delegate) -> Reference {
    let at = at.field("delegate");
    if shape.name.is_empty() {
        findings.refuse(&at, "has no name", "write the name of a VirtualService without hosts");
    }
    let own = findings.namespace();
    let namespace = if shape.namespace.is_empty() { own } else { &shape.namespace };
    Reference {
        to: NamespacedName::new(namespace, &shape.name),
        position: findings.subject.position_of(&at.steps()),
    }
}

/// What cannot stand beside one another in a rule.
fn conflicts(findings: &mut Findings<'_>, at: &Path, route: &shapes::HttpRoute, is_delegate: bool) {
    let route_is = !route.route.is_empty();
    if route.delegate.is_some() {
        if is_delegate {
            let what = "an object without hosts, which others delegate to, delegates on";
            findings.refuse(&at.field("delegate"), what, "write the route here");
        } else if route_is || route.redirect.is_some() {
            let what = "has delegate beside route or redirect";
            findings.refuse(at, what, "leave them to the other object");
        }
        return;
    }
    let end = if route.redirect.is_some() {
        "redirect"
    } else if route.direct_response.is_some() {
        "directResponse"
    } else {
        if !route_is {
            let what = "has no route, redirect, directResponse or delegate";
            findings.refuse(at, what, "write one of them");
        }
        return;
    };
    let others = [
        ("route", route_is),
        ("fault", route.fault.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("directResponse", end == "redirect" && route.direct_response.is_some()),
    ];
    for (other, _) in others.iter().filter(|(_, is)| *is) {
        findings.refuse(at, format!("has both {end} and {other}"), "write a rule for each");
    }
}
