//! GRPCRoute: a service is the first element of a path, a method the second.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::traffic::{HttpAction, HttpMatch, HttpRule, PathMatch};

use super::{
    RouteDraft, Rules,
    backends::{MAX_BACKENDS, WeightedRef},
    cursor::Cursor,
    draft,
    filters::{Filter, rule_filters},
    http_route::{check_fields, check_rules, hostnames, session_persistence},
    matches::{Entry, MAX_MATCHES, TextType, check_pattern, header_matches},
    parents,
    parents::CommonSpec,
    values,
};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};

const MAX_RULES: usize = 16;
const MAX_NAME: usize = 1024;

const KNOWN: [fields::Known; 6] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["parentRefs", "useDefaultGateways", "hostnames", "rules"]),
    ("spec.rules.[]", &["name", "matches", "filters", "backendRefs", "sessionPersistence"]),
    ("spec.rules.[].matches.[]", &["method", "headers"]),
    ("spec.rules.[].matches.[].method", &["type", "service", "method"]),
    ("spec.rules.[].matches.[].headers.[]", &["type", "name", "value"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct GrpcRoute {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    parent_refs: parents::Parents,
    use_default_gateways: Option<String>,
    hostnames: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    name: Option<String>,
    matches: Vec<Match>,
    filters: Vec<Filter>,
    backend_refs: Vec<WeightedRef>,
    session_persistence: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Match {
    method: Option<Method>,
    headers: Vec<Entry>,
}

/// `GRPCMethodMatch`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Method {
    #[serde(rename = "type")]
    kind: TextType,
    service: Option<String>,
    method: Option<String>,
}

/// Reads a GRPCRoute; `None` where it is not for the mesh.
pub(crate) fn grpc_route(
    object: &GrpcRoute,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<RouteDraft>> {
    check_fields(&KNOWN, subject, report);
    let GrpcRoute { metadata, spec } = object;
    let common = CommonSpec::new(&spec.parent_refs, spec.use_default_gateways.as_deref());
    draft(metadata, &common, subject, report, |cursor| {
        hostnames(&spec.hostnames, cursor);
        let matches = spec.rules.iter().map(|rule| rule.matches.len()).sum();
        // Unlike an HTTPRoute, a GRPCRoute may be without rules.
        check_rules(spec.rules.len().max(1), matches, cursor);
        if spec.rules.is_empty() {
            let remedy = "it has no effect; write a rule";
            cursor.warning(&[], "route-without-rules", "the route has no rules", remedy);
        }
        let mut names = BTreeSet::new();
        let http = cursor
            .each("rules", &spec.rules, MAX_RULES, |cursor, rule| rule.read(&mut names, cursor));
        Rules { http, ..Rules::default() }
    })
}

impl Rule {
    fn read(&self, names: &mut BTreeSet<String>, cursor: &mut Cursor<'_, '_>) -> HttpRule {
        let name = values::rule_name(self.name.as_ref(), names, cursor);
        let matches = cursor.each("matches", &self.matches, MAX_MATCHES, Match::read);
        let filtered = rule_filters(&self.filters, cursor);
        let backends =
            cursor.each("backendRefs", &self.backend_refs, MAX_BACKENDS, WeightedRef::http);
        session_persistence(self.session_persistence.as_ref(), cursor);
        HttpRule {
            name,
            matches,
            action: filtered.action.unwrap_or(HttpAction::Forward(backends)),
            rewrite: filtered.rewrite,
            headers: filtered.headers,
            timeout: None,
            retries: None,
            fault: None,
            mirrors: filtered.mirrors,
            cors: None,
        }
    }
}

impl Match {
    fn read(cursor: &mut Cursor<'_, '_>, read: &Self) -> HttpMatch {
        let method = read.method.as_ref();
        HttpMatch {
            path: method.and_then(|method| cursor.within("method", |at| method.read(at))),
            headers: header_matches(&read.headers, cursor),
            ..HttpMatch::default()
        }
    }
}

impl Method {
    fn read(&self, cursor: &mut Cursor<'_, '_>) -> Option<PathMatch> {
        let set = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        let (service, method) = (set(&self.service), set(&self.method));
        if service.is_none() && method.is_none() {
            let message = "has neither a service nor a method";
            cursor.error(&[], message, "write one of the two, or remove the field");
            return None;
        }
        for (field, text) in [("service", &service), ("method", &method)] {
            let Some(text) = text else { continue };
            if text.len() > MAX_NAME {
                let message = format!("is longer than {MAX_NAME} bytes");
                cursor.error(&[field], &message, "shorten it");
            }
            match self.kind {
                TextType::RegularExpression => check_pattern(text, field, cursor),
                TextType::Exact => check_name(field, text, cursor),
            }
        }
        Some(self.path(service.as_deref(), method.as_deref()))
    }

    fn path(&self, service: Option<&str>, method: Option<&str>) -> PathMatch {
        const ANY: &str = "[^/]+";
        match (self.kind, service, method) {
            (TextType::Exact, Some(service), Some(method)) => {
                PathMatch::Exact(format!("/{service}/{method}"))
            }
            (TextType::Exact, Some(service), None) => PathMatch::Elements(format!("/{service}")),
            // Names have no letters that mean something in a pattern.
            (TextType::Exact, None, method) => {
                PathMatch::Regex(format!("/{ANY}/{}", method.unwrap_or(ANY)))
            }
            (TextType::RegularExpression, service, method) => {
                let part =
                    |text: Option<&str>| text.map_or(ANY.to_owned(), |text| format!("(?:{text})"));
                PathMatch::Regex(format!("/{}/{}", part(service), part(method)))
            }
        }
    }
}

/// What the API refuses of names: `package.Service`, `Method`.
fn check_name(field: &str, text: &str, cursor: &mut Cursor<'_, '_>) {
    let label = |label: &str| {
        label.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let good = match field {
        "service" => text.strip_prefix('.').unwrap_or(text).split('.').all(label),
        _ => label(text),
    };
    if !good {
        let message = format!("{text:?} is no name of a gRPC {field}");
        cursor.error(&[field], &message, "write for example shop.Cart and AddItem");
    }
}
