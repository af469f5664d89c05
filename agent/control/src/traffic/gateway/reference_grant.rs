//! ReferenceGrant: which routes of other namespaces may send to Services of this one.

use serde::Deserialize;
use undermesh_model::{NamespacedName, ResourceRef};

use super::{GROUP, cursor::Cursor, values};
use crate::{
    fields, names,
    objects::Placed,
    report::{Report, Subject},
};

const MAX_ENTRIES: usize = 16;

const KNOWN: [fields::Known; 4] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["from", "to"]),
    ("spec.from.[]", &["group", "kind", "namespace"]),
    ("spec.to.[]", &["group", "kind", "name"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReferenceGrant {
    spec: Spec,
}

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    from: Vec<From>,
    to: Vec<To>,
}

#[derive(Clone, Debug, Deserialize)]
struct From {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Clone, Debug, Deserialize)]
struct To {
    group: String,
    kind: String,
    name: Option<String>,
}

/// What a ReferenceGrant permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Kinds of routes, and their namespaces.
    from: Vec<(String, String)>,
    /// Services; `None` for all of the grant's namespace.
    to: Vec<Option<String>>,
}

impl Grant {
    /// Whether a route may send to a Service of the grant's namespace.
    pub(super) fn permits(&self, route: &ResourceRef, service: &NamespacedName) -> bool {
        let mut from = self.from.iter();
        let mut to = self.to.iter();
        from.any(|(kind, namespace)| *kind == route.kind && *namespace == route.namespace)
            && to.any(|name| name.as_ref().is_none_or(|name| *name == service.name))
    }
}

/// Reads a ReferenceGrant. What is about other kinds (Gateways, Secrets) is for others.
pub(crate) fn reference_grant(
    object: &ReferenceGrant,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<Grant> {
    fields::check(&KNOWN, subject, report);
    let Spec { from, to } = &object.spec;
    let mut cursor = Cursor::new(subject, report);
    let grant = cursor.within("spec", |cursor| {
        for (field, empty) in [("from", from.is_empty()), ("to", to.is_empty())] {
            if empty {
                cursor.error(&[field], "is empty", "write who may send where");
            }
        }
        let from = cursor.each("from", from, MAX_ENTRIES, |cursor, from| {
            if !names::is_label(&from.namespace) {
                let message = format!("{:?} is no name of a namespace", from.namespace);
                cursor.error(&["namespace"], &message, "correct the name");
            }
            (from.group == GROUP).then(|| (from.kind.clone(), from.namespace.clone()))
        });
        let to = cursor.each("to", to, MAX_ENTRIES, |_, to| {
            let service = values::is_core(&to.group) && to.kind == "Service";
            service.then(|| to.name.clone().filter(|name| !name.is_empty()))
        });
        Grant { from: from.into_iter().flatten().collect(), to: to.into_iter().flatten().collect() }
    });
    Placed::new(grant, subject)
}
