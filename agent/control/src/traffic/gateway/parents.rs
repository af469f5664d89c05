//! `parentRefs`: which Services a route is for.
//!
//! Source: GEP-1294; `CommonRouteSpec` for what is refused.

use std::num::NonZeroU16;

use serde::Deserialize;
use undermesh_model::NamespacedName;

use super::{GROUP, cursor::Cursor, values};
use crate::{fields, names, objects::Placed};

const MAX_PARENTS: usize = 32;

pub(super) const KNOWN: [fields::Known; 1] =
    [("spec.parentRefs.[]", &["group", "kind", "namespace", "name", "sectionName", "port"])];

/// `parentRefs`.
pub(super) type Parents = Vec<Parent>;

/// What the specs of all routes have in common.
pub(super) struct CommonSpec<'a> {
    parent_refs: &'a [Parent],
    use_default_gateways: Option<&'a str>,
}

/// `ParentReference`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parent {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<NonZeroU16>,
}

/// A Service that a route is for, not looked for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParentRef {
    pub(super) service: NamespacedName,
    /// Number of a port.
    pub(super) port: Option<u16>,
    /// Name of a port.
    pub(super) section: Option<String>,
}

impl<'a> CommonSpec<'a> {
    /// From the fields of a spec.
    pub(super) fn new(parent_refs: &'a [Parent], use_default_gateways: Option<&'a str>) -> Self {
        Self { parent_refs, use_default_gateways }
    }

    /// Reads the parents that are Services.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Vec<Placed<ParentRef>> {
        self.check_distinct(cursor);
        if self.use_default_gateways.is_some_and(|scope| scope != "None") {
            cursor.info(
                &["useDefaultGateways"],
                "ignored-parent",
                "gateways are not part of the mesh",
                "the mesh ignores this field",
            );
        }
        let read = cursor.each("parentRefs", self.parent_refs, MAX_PARENTS, Parent::read);
        if read.is_empty() {
            let remedy = "write a parentRef with group \"\", kind Service and a name";
            cursor.info(&[], "route-without-parent", "the route has no parent", remedy);
        }
        read.into_iter().flatten().collect()
    }

    /// References to one object set the same fields, to different values.
    fn check_distinct(&self, cursor: &mut Cursor<'_, '_>) {
        for (index, own) in self.parent_refs.iter().enumerate().take(MAX_PARENTS) {
            let above = self.parent_refs.iter().take(index);
            for other in above.filter(|other| other.same_object(own)) {
                let fields = |one: &Parent| (one.section_name.is_some(), one.port.is_some());
                let (own_place, other_place) =
                    ((&own.section_name, own.port), (&other.section_name, other.port));
                if fields(own) != fields(other) || own_place == other_place {
                    let index = index.to_string();
                    let message = "names a parent that is named above as well";
                    let remedy = "set sectionName or port in both, to different values";
                    cursor.error(&["parentRefs", &index], message, remedy);
                    break;
                }
            }
        }
    }
}

impl Parent {
    fn same_object(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            (one.group.clone(), one.kind.clone(), one.namespace.clone(), one.name.clone())
        };
        key(self) == key(other)
    }

    /// `None` where it is no Service.
    fn read(cursor: &mut Cursor<'_, '_>, parent: &Self) -> Option<Placed<ParentRef>> {
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        let group = parent.group.as_deref();
        if kind != "Service" || !group.is_none_or(values::is_core) {
            let group = group.unwrap_or(GROUP);
            let message = format!("parent {kind:?} of group {group:?} is not part of the mesh");
            let remedy = "the mesh ignores this parent; for a Service write group \"\"";
            cursor.info(&[], "ignored-parent", &message, remedy);
            return None;
        }
        if group.is_none() {
            let message = "kind Service has no group, which an API server fills with its own";
            cursor.warning(&[], "parent-without-group", message, "write group: \"\"");
        }
        let namespace = parent.namespace.as_deref().unwrap_or(cursor.namespace()).to_owned();
        if !names::is_label(&namespace) {
            let message = format!("{namespace:?} is no name of a namespace");
            cursor.error(&["namespace"], &message, "correct the name");
        }
        if parent.section_name.as_deref().is_some_and(|name| !names::is_subdomain(name)) {
            let remedy = "write the name of a port of the Service";
            cursor.error(&["sectionName"], "is no name of a port", remedy);
        }
        let read = ParentRef {
            service: NamespacedName::new(namespace, &parent.name),
            port: parent.port.map(NonZeroU16::get),
            section: parent.section_name.clone(),
        };
        Some(cursor.place(read, &[]))
    }
}
