//! BackendTLSPolicy: TLS towards a Service's endpoints.
//!
//! [`tls_policy`] reads an object, and [`connect_tls`] finds what it names: Services, their ports, and
//! ConfigMaps with roots. Which of several policies holds is decided where snapshots are compiled.
//!
//! Source: `gateway.networking.k8s.io` v1, `BackendTLSPolicy`; GEP-1897.

mod shapes;
mod targets;

use std::collections::BTreeSet;

pub(crate) use shapes::BackendTlsPolicy;
pub(crate) use targets::connect_tls;

use undermesh_model::{
    NamespacedName,
    traffic::{ClientTls, TlsMode},
};

use crate::{
    fields, names,
    objects::Placed,
    report::{Report, Subject},
    traffic::{
        common, istio,
        place::{self, Place},
    },
};
use shapes::{ObjectRef, SubjectAltName, TargetRef, Validation};

const MAX_TARGETS: usize = 16;
const MAX_ROOTS: usize = 8;
const MAX_NAMES: usize = 5;
const SYSTEM: &str = "System";

/// A policy, read, and what is to be found in other objects.
#[derive(Clone, Debug)]
pub(crate) struct TlsDraft {
    precedence: i64,
    created: i64,
    /// Services that it is for.
    targets: Vec<Placed<Target>>,
    /// ConfigMaps with roots; `None` for a reference that can lead nowhere, empty for the system's roots.
    roots: Vec<Placed<Option<NamespacedName>>>,
    tls: ClientTls,
}

impl TlsDraft {
    /// ConfigMaps that it names.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &NamespacedName> {
        self.roots.iter().filter_map(|root| root.value.as_ref())
    }
}

/// A Service, or one of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    service: NamespacedName,
    /// Name of the port.
    section: Option<String>,
}

/// Reads a BackendTLSPolicy.
pub(crate) fn tls_policy(
    object: &BackendTlsPolicy,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<TlsDraft> {
    fields::check(&shapes::KNOWN, subject, report);
    let BackendTlsPolicy { metadata, spec } = object;
    let precedence = common::precedence(metadata, subject, report);
    let draft = place::read(subject, report, "invalid-backend-tls-policy", |object| {
        let at = object.field("spec");
        if spec.options.as_ref().is_some_and(|options| !options.is_empty()) {
            at.field("options").warn("unsupported-field", "is not supported", "it has no effect");
        }
        let validation = at.field("validation");
        TlsDraft {
            precedence,
            created: common::created(metadata),
            targets: targets(&at.field("targetRefs"), subject, &spec.target_refs),
            roots: roots(&validation, subject, &spec.validation),
            tls: tls(&validation, &spec.validation),
        }
    });
    Placed::new(draft, subject)
}

fn targets(at: &Place<'_>, subject: &Subject<'_>, references: &[TargetRef]) -> Vec<Placed<Target>> {
    if references.is_empty() || references.len() > MAX_TARGETS {
        let what = format!("has {} items", references.len());
        at.refuse(what, &format!("write 1 to {MAX_TARGETS} Services"));
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (index, reference) in references.iter().enumerate() {
        let at = at.item(index);
        let TargetRef { group, kind, name, section_name } = reference;
        let section = section_name.clone().filter(|name| !name.is_empty());
        let same = |other: &&TargetRef| {
            other.group == *group && other.kind == *kind && other.name == *name
        };
        let whole =
            |other: &TargetRef| other.section_name.as_deref().unwrap_or_default().is_empty();
        let all = references.iter().filter(same);
        let mixed = all.clone().any(whole) && all.clone().any(|other| !whole(other));
        if mixed || !seen.insert((group, kind, name, section.clone())) {
            let what = format!("{kind} {name} is named twice");
            at.refuse(what, "name it once, or give each a sectionName of its own");
        }
        if kind != "Service" || !super::values::is_core(group) {
            let what = format!("{kind} of group {group:?} is no Service");
            at.warn("unsupported-target", what, "it has no effect; name a Service");
            continue;
        }
        let service = NamespacedName::new(at.namespace(), name);
        let path = ["spec", "targetRefs", &index.to_string(), "name"];
        found.push(Placed::at(Target { service, section }, subject, &path));
    }
    found
}

fn roots(
    at: &Place<'_>,
    subject: &Subject<'_>,
    validation: &Validation,
) -> Vec<Placed<Option<NamespacedName>>> {
    let known = validation.well_known_ca_certificates.as_deref().filter(|name| !name.is_empty());
    let references = &validation.ca_certificate_refs;
    if let Some(other) = known.filter(|name| *name != SYSTEM) {
        let what = format!("{other:?} is not known");
        at.field("wellKnownCACertificates").refuse(what, "write System");
    }
    if known.is_some() != references.is_empty() {
        let what = "one of caCertificateRefs and wellKnownCACertificates has to say who is trusted";
        at.refuse(what, "write one of the two");
    }
    let at = at.field("caCertificateRefs");
    if references.len() > MAX_ROOTS {
        at.refuse(format!("has {} items", references.len()), "write at most 8");
    }
    let read = |(index, reference): (usize, &ObjectRef)| {
        let ObjectRef { group, kind, name } = reference;
        let known = kind == "ConfigMap" && super::values::is_core(group);
        if !known {
            let what = format!("{kind} of group {group:?} is no ConfigMap");
            let remedy = "name a ConfigMap; nothing is trusted because of this";
            at.item(index).warn("invalid-ca-reference", what, remedy);
        }
        let path = ["spec", "validation", "caCertificateRefs", &index.to_string(), "name"];
        let name = known.then(|| NamespacedName::new(at.namespace(), name));
        Placed::at(name, subject, &path)
    };
    references.iter().enumerate().map(read).collect()
}

fn tls(at: &Place<'_>, validation: &Validation) -> ClientTls {
    let host = &validation.hostname;
    if host.contains('*') || !istio::is_full_name(host) {
        let what = format!("{host:?} is no full name of a host");
        at.field("hostname").refuse(what, "write the DNS name that the server is asked for by");
    }
    let names = &validation.subject_alt_names;
    let field = at.field("subjectAltNames");
    if names.len() > MAX_NAMES {
        field.refuse(format!("has {} items", names.len()), "write at most 5");
    }
    let names = names.iter().enumerate();
    ClientTls {
        mode: TlsMode::Simple,
        sni: Some(host.clone()),
        subject_alt_names: names.filter_map(|(n, name)| alt_name(&field.item(n), name)).collect(),
        ..ClientTls::default()
    }
}

fn alt_name(at: &Place<'_>, name: &SubjectAltName) -> Option<String> {
    let SubjectAltName { kind, hostname, uri } = name;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (wanted, other, field) = match kind.as_str() {
        "Hostname" => (set(hostname), set(uri), "hostname"),
        "URI" => (set(uri), set(hostname), "uri"),
        other => {
            at.field("type").refuse(format!("{other:?} is not known"), "write Hostname or URI");
            return None;
        }
    };
    if wanted.is_none() || other.is_some() {
        at.refuse(format!("{kind} goes with {field}, and with nothing else"), "write that field");
    }
    let good = |text: &String| match kind.as_str() {
        "URI" => text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty() && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        }),
        _ => names::is_host(text.strip_prefix("*.").unwrap_or(text)),
    };
    if let Some(text) = wanted.as_ref().filter(|text| !good(text)) {
        at.field(field).refuse(format!("{text:?} is none"), "correct it");
    }
    wanted
}

#[cfg(test)]
mod tests;
