//! HTTPRoute.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::traffic::{HttpAction, HttpMatch, HttpRule};

use super::{
    RouteDraft, Rules, backends,
    backends::{MAX_BACKENDS, WeightedRef},
    cursor::Cursor,
    draft, filters,
    filters::{Filter, rule_filters},
    matches::{MAX_MATCHES, Match, everything},
    parents,
    parents::CommonSpec,
    retries::{Retry, Timeouts, retries},
    values,
};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};

const MAX_RULES: usize = 16;
const MAX_HOSTNAMES: usize = 16;
/// Matches of all rules.
const MAX_TOTAL: usize = 128;
const ENTRY: &[&str] = &["type", "name", "value"];

const KNOWN: [fields::Known; 9] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["parentRefs", "useDefaultGateways", "hostnames", "rules"]),
    (
        "spec.rules.[]",
        &["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"],
    ),
    ("spec.rules.[].matches.[]", &["path", "headers", "queryParams", "method"]),
    ("spec.rules.[].matches.[].path", &["type", "value"]),
    ("spec.rules.[].matches.[].headers.[]", ENTRY),
    ("spec.rules.[].matches.[].queryParams.[]", ENTRY),
    ("spec.rules.[].timeouts", &["request", "backendRequest"]),
    ("spec.rules.[].retry", &["codes", "attempts", "backoff"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HttpRoute {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    // Not flattened: serde would lose the line of a wrong type.
    parent_refs: parents::Parents,
    use_default_gateways: Option<String>,
    hostnames: Vec<String>,
    rules: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: Option<String>,
    matches: Vec<Match>,
    filters: Vec<Filter>,
    backend_refs: Vec<WeightedRef>,
    timeouts: Option<Timeouts>,
    retry: Option<Retry>,
    session_persistence: Option<IgnoredAny>,
}

/// Reads an HTTPRoute; `None` where it is not for the mesh.
pub(crate) fn http_route(
    object: &HttpRoute,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<RouteDraft>> {
    check_fields(&KNOWN, subject, report);
    let HttpRoute { metadata, spec } = object;
    let common = CommonSpec::new(&spec.parent_refs, spec.use_default_gateways.as_deref());
    draft(metadata, &common, subject, report, |cursor| {
        hostnames(&spec.hostnames, cursor);
        let standard = [Rule::default()];
        let rules = spec.rules.as_deref().unwrap_or(&standard);
        check_rules(rules.len(), rules.iter().map(|rule| rule.matches.len()).sum(), cursor);
        let mut names = BTreeSet::new();
        let http =
            cursor.each("rules", rules, MAX_RULES, |cursor, rule| rule.read(&mut names, cursor));
        Rules { http, ..Rules::default() }
    })
}

/// Reports unknown fields of a route for requests.
pub(super) fn check_fields(known: &[fields::Known], subject: &Subject<'_>, report: &mut Report) {
    fields::check(known, subject, report);
    fields::check(&parents::KNOWN, subject, report);
    fields::check(&backends::HTTP_KNOWN, subject, report);
    for prefix in ["spec.rules.[].filters.[]", "spec.rules.[].backendRefs.[].filters.[]"] {
        fields::check_below(prefix, &filters::KNOWN, subject, report);
    }
}

/// GEP-1294: `hostnames` has no meaning where a Service is the parent.
pub(super) fn hostnames(hostnames: &[String], cursor: &mut Cursor<'_, '_>) {
    cursor.each("hostnames", hostnames, MAX_HOSTNAMES, |cursor, host| {
        values::host(host, true, &[], cursor);
    });
    if !hostnames.is_empty() {
        let message = "has no meaning for a route whose parent is a Service";
        let remedy = "it has no effect; match the header Host instead";
        cursor.warning(&["hostnames"], "ignored-hostnames", message, remedy);
    }
}

/// The number of rules and of all their matches.
pub(super) fn check_rules(rules: usize, matches: usize, cursor: &mut Cursor<'_, '_>) {
    if rules == 0 {
        cursor.error(&["rules"], "is empty", "write a rule, or remove the field");
    }
    if matches > MAX_TOTAL {
        let message = format!("has {matches} matches in all, {MAX_TOTAL} are allowed");
        cursor.error(&["rules"], &message, "write several routes");
    }
}

/// `sessionPersistence`.
pub(super) fn session_persistence(field: Option<&IgnoredAny>, cursor: &mut Cursor<'_, '_>) {
    if field.is_some() {
        let message = "is not supported: sessions are not kept";
        let remedy = "it has no effect; a DestinationRule with consistentHash comes near to it";
        cursor.warning(&["sessionPersistence"], "not-enforced", message, remedy);
    }
}

impl Rule {
    fn read(&self, names: &mut BTreeSet<String>, cursor: &mut Cursor<'_, '_>) -> HttpRule {
        let name = values::rule_name(self.name.as_ref(), names, cursor);
        let mut matches = cursor.each("matches", &self.matches, MAX_MATCHES, Match::read);
        if matches.is_empty() {
            matches.push(HttpMatch { path: Some(everything()), ..HttpMatch::default() });
        }
        self.check_prefix_modifiers(cursor);
        let filtered = rule_filters(&self.filters, cursor);
        let backends =
            cursor.each("backendRefs", &self.backend_refs, MAX_BACKENDS, WeightedRef::http);
        if matches!(filtered.action, Some(HttpAction::Redirect(_))) && !backends.is_empty() {
            let message = "a rule that redirects sends nothing on";
            cursor.error(&["backendRefs"], message, "remove backendRefs or the RequestRedirect");
        }
        session_persistence(self.session_persistence.as_ref(), cursor);
        let timeouts = self.timeouts.as_ref();
        let limits = timeouts.map(|timeouts| cursor.within("timeouts", |at| timeouts.read(at)));
        let limits = limits.unwrap_or_default();
        HttpRule {
            name,
            matches,
            action: filtered.action.unwrap_or(HttpAction::Forward(backends)),
            rewrite: filtered.rewrite,
            headers: filtered.headers,
            timeout: limits.request,
            retries: retries(self.retry.as_ref(), limits, cursor),
            fault: None,
            mirrors: filtered.mirrors,
            cors: filtered.cors,
        }
    }

    /// `replacePrefixMatch` needs the one prefix that it replaces.
    fn check_prefix_modifiers(&self, cursor: &mut Cursor<'_, '_>) {
        if self.matches.len() <= 1 && self.matches.iter().all(Match::is_prefix) {
            return;
        }
        let own = self.filters.iter().enumerate().map(|(index, filter)| (None, index, filter));
        let of_backends = self.backend_refs.iter().enumerate().flat_map(|(backend, one)| {
            let filters = one.filters().iter().enumerate();
            filters.map(move |(index, filter)| (Some(backend), index, filter))
        });
        for (backend, index, filter) in own.chain(of_backends) {
            let Some((field, path)) = filter.path() else { continue };
            if !path.is_prefix() {
                continue;
            }
            let backend = backend.map(|backend| backend.to_string());
            let index = index.to_string();
            let mut place = vec!["filters", &index, field, "path", "type"];
            if let Some(backend) = &backend {
                place.splice(0..0, ["backendRefs", backend.as_str()]);
            }
            let message = "ReplacePrefixMatch needs a rule with one match, of type PathPrefix";
            cursor.error(&place, message, "write a rule for every prefix");
        }
    }
}
