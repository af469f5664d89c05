//! `backendRefs`: where rules send to.

use std::num::NonZeroU16;

use serde::Deserialize;
use undermesh_model::{
    NamespacedName,
    traffic::{Backend, BackendRef, HeaderOps},
};

use super::{
    cursor::Cursor,
    filters::{Filter, backend_filters},
    values,
};
use crate::{fields, names, traffic::common};

/// Backends of one rule.
pub(super) const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: u32 = 1_000_000;

/// Fields of a backend of connections.
pub(super) const L4_KNOWN: [fields::Known; 1] =
    [("spec.rules.[].backendRefs.[]", &["group", "kind", "namespace", "name", "port", "weight"])];

/// Fields of a backend of requests.
pub(super) const HTTP_KNOWN: [fields::Known; 1] = [(
    "spec.rules.[].backendRefs.[]",
    &["group", "kind", "namespace", "name", "port", "weight", "filters"],
)];

/// `BackendObjectReference`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<NonZeroU16>,
}

/// `HTTPBackendRef`, `GRPCBackendRef`, `BackendRef`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WeightedRef {
    // Not flattened: serde would lose the line of a wrong type.
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<NonZeroU16>,
    weight: Option<u32>,
    #[serde(default)]
    filters: Vec<Filter>,
}

/// A Service that a rule sends to, not looked for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) service: NamespacedName,
    pub(super) port: u16,
}

impl Reference {
    /// How backends name it.
    pub(super) fn backend(&self) -> BackendRef {
        let host = common::service_host(&self.service.name, &self.service.namespace);
        BackendRef::Host { host, port: Some(self.port), subset: None }
    }
}

impl ObjectRef {
    /// Where it leads; Services are looked for later.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> BackendRef {
        let kind = self.kind.as_deref().unwrap_or("Service");
        let group = self.group.as_deref().unwrap_or_default();
        if kind != "Service" || !values::is_core(group) {
            let reason = format!("a backend of kind {kind:?}, group {group:?}, is not supported");
            let remedy = "send to a Service; until then its share is answered with an error";
            cursor.warning(&[], "unsupported-backend", &reason, remedy);
            return BackendRef::Invalid(reason);
        }
        let namespace = self.namespace.as_deref().unwrap_or(cursor.namespace()).to_owned();
        if !names::is_label(&namespace) {
            let message = format!("{namespace:?} is no name of a namespace");
            cursor.error(&["namespace"], &message, "correct the name");
        }
        let Some(port) = self.port else {
            let message = "a Service needs a port";
            cursor.error(&["port"], message, "write the number of a port of the Service");
            return BackendRef::Invalid(message.to_owned());
        };
        let service = NamespacedName::new(namespace, &self.name);
        let reference = Reference { service, port: port.get() };
        let backend = reference.backend();
        cursor.refer(reference.service, reference.port);
        backend
    }
}

impl WeightedRef {
    /// Its own filters.
    pub(super) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Reads a backend of requests.
    pub(super) fn http(cursor: &mut Cursor<'_, '_>, backend: &Self) -> Backend {
        let mut read = Self::l4(cursor, backend);
        match backend_filters(&backend.filters, cursor) {
            Ok(headers) => read.headers = headers,
            Err(reason) => read.to = BackendRef::Invalid(reason),
        }
        read
    }

    /// Reads a backend of connections.
    pub(super) fn l4(cursor: &mut Cursor<'_, '_>, backend: &Self) -> Backend {
        let weight = backend.weight.unwrap_or(1);
        if weight > MAX_WEIGHT {
            let message = format!("{weight} is more than {MAX_WEIGHT}");
            cursor.error(&["weight"], &message, "write weights in proportion to one another");
        }
        let object = ObjectRef {
            group: backend.group.clone(),
            kind: backend.kind.clone(),
            namespace: backend.namespace.clone(),
            name: backend.name.clone(),
            port: backend.port,
        };
        Backend { to: object.read(cursor), weight, headers: HeaderOps::default() }
    }
}
