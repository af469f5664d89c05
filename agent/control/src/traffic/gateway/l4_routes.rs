//! TCPRoute and TLSRoute: where connections go.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use undermesh_model::traffic::{L4Match, L4Rule};

use super::{
    RouteDraft, Rules, backends,
    backends::{MAX_BACKENDS, WeightedRef},
    cursor::Cursor,
    draft, parents,
    parents::CommonSpec,
    values,
};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};

/// Version v1 allows one rule, those before it sixteen; the first one is what counts.
const MAX_RULES: usize = 16;
const MAX_HOSTNAMES: usize = 1024;

const KNOWN: [fields::Known; 2] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec.rules.[]", &["name", "backendRefs"]),
];
const TCP_SPEC: fields::Known = ("spec", &["parentRefs", "useDefaultGateways", "rules"]);
const TLS_SPEC: fields::Known =
    ("spec", &["parentRefs", "useDefaultGateways", "hostnames", "rules"]);

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TcpRoute {
    metadata: ObjectMeta,
    spec: Spec,
}

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TlsRoute {
    metadata: ObjectMeta,
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
    backend_refs: Vec<WeightedRef>,
}

/// Reads a TCPRoute; `None` where it is not for the mesh.
pub(crate) fn tcp_route(
    object: &TcpRoute,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<RouteDraft>> {
    check_fields(TCP_SPEC, subject, report);
    let TcpRoute { metadata, spec } = object;
    draft(metadata, &spec.common(), subject, report, |cursor| Rules {
        tcp: spec.rules(&[], cursor),
        ..Rules::default()
    })
}

/// Reads a TLSRoute; `None` where it is not for the mesh.
///
/// GEP-1294 advises against giving `hostnames` a meaning in a mesh, and the later definition of
/// TLSRoute demands them as its only match. Without them, a route for one name would take the
/// connections of all others.
pub(crate) fn tls_route(
    object: &TlsRoute,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<RouteDraft>> {
    check_fields(TLS_SPEC, subject, report);
    let TlsRoute { metadata, spec } = object;
    draft(metadata, &spec.common(), subject, report, |cursor| {
        let hosts = cursor.each("hostnames", &spec.hostnames, MAX_HOSTNAMES, |cursor, host| {
            values::host(host, true, &[], cursor);
            host.clone()
        });
        let matches = L4Match { sni_hosts: hosts, ..L4Match::default() };
        Rules { tls: spec.rules(&[matches], cursor), ..Rules::default() }
    })
}

fn check_fields(spec: fields::Known, subject: &Subject<'_>, report: &mut Report) {
    fields::check(&KNOWN, subject, report);
    fields::check(&[spec], subject, report);
    fields::check(&parents::KNOWN, subject, report);
    fields::check(&backends::L4_KNOWN, subject, report);
}

impl Spec {
    fn common(&self) -> CommonSpec<'_> {
        CommonSpec::new(&self.parent_refs, self.use_default_gateways.as_deref())
    }

    fn rules(&self, matches: &[L4Match], cursor: &mut Cursor<'_, '_>) -> Vec<L4Rule> {
        if self.rules.is_empty() {
            cursor.error(&["rules"], "is empty", "write a rule");
        }
        if self.rules.len() > 1 {
            let message = "all rules are about the same connections: the first one counts";
            cursor.warning(&["rules", "1"], "ignored-entry", message, "remove the others");
        }
        let mut names = BTreeSet::new();
        cursor.each("rules", &self.rules, MAX_RULES, |cursor, rule| {
            if rule.backend_refs.is_empty() {
                let message = "is empty";
                cursor.error(&["backendRefs"], message, "write the Service that it leads to");
            }
            let name = values::rule_name(rule.name.as_ref(), &mut names, cursor);
            let backends = &rule.backend_refs;
            let backends = cursor.each("backendRefs", backends, MAX_BACKENDS, WeightedRef::l4);
            L4Rule { name, matches: matches.to_vec(), backends }
        })
    }
}
