//! The converted objects of one state, before they are connected with one another. Any source of
//! Kubernetes objects fills it.

use std::collections::{HashMap, hash_map::Entry};

use undermesh_model::{
    AuthorizationPolicy, EndpointSlice, MeshConfig, NamespacedName, Node, PeerAuthentication,
    RateLimitPolicy, RequestAuthentication, ResourceRef, ServiceAccount, SourcePosition,
    traffic::{DestinationRule, ServiceEntry, TlsSecret, WorkloadEntry},
};

use crate::{
    convert::{NamespaceRecord, PodRecord, Roots, RuntimeClass, ServiceRecord},
    report::{Report, Subject},
    traffic::{
        self,
        gateway::{Grant, RouteDraft, TlsDraft},
    },
};

/// Objects that one state may hold.
pub(crate) const MAX_OBJECTS: usize = 200_000;

/// Something converted, and where its object stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) origin: ResourceRef,
    pub(crate) position: Option<SourcePosition>,
}

impl<T> Placed<T> {
    pub(crate) fn new(value: T, subject: &Subject<'_>) -> Self {
        Self { value, origin: subject.origin.clone(), position: subject.position.clone() }
    }

    /// Something below a field of the object, with the field's line.
    pub(crate) fn at(value: T, subject: &Subject<'_>, path: &[&str]) -> Self {
        let position = subject.position_of(path);
        Self { value, origin: subject.origin.clone(), position }
    }

    pub(crate) fn subject(&self) -> Subject<'static> {
        Subject { origin: self.origin.clone(), position: self.position.clone(), document: None }
    }

    pub(crate) fn name(&self) -> NamespacedName {
        NamespacedName::new(&self.origin.namespace, &self.origin.name)
    }
}

/// The objects of a state, by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    pub(crate) namespaces: Vec<Placed<NamespaceRecord>>,
    pub(crate) nodes: Vec<Placed<Node>>,
    pub(crate) runtime_classes: Vec<Placed<RuntimeClass>>,
    pub(crate) service_accounts: Vec<Placed<ServiceAccount>>,
    pub(crate) pods: Vec<Placed<PodRecord>>,
    pub(crate) services: Vec<Placed<ServiceRecord>>,
    pub(crate) endpoint_slices: Vec<Placed<EndpointSlice>>,
    pub(crate) peer_authentications: Vec<Placed<PeerAuthentication>>,
    pub(crate) request_authentications: Vec<Placed<RequestAuthentication>>,
    pub(crate) authorization_policies: Vec<Placed<AuthorizationPolicy>>,
    pub(crate) mesh_configs: Vec<Placed<MeshConfig>>,
    pub(crate) rate_limits: Vec<Placed<RateLimitPolicy>>,
    pub(crate) config_maps: Vec<Placed<Roots>>,
    pub(crate) secrets: Vec<Placed<TlsSecret>>,
    pub(crate) backend_tls_policies: Vec<Placed<TlsDraft>>,
    pub(crate) gateway_routes: Vec<Placed<RouteDraft>>,
    pub(crate) reference_grants: Vec<Placed<Grant>>,
    pub(crate) virtual_services: Vec<Placed<traffic::Draft>>,
    pub(crate) destination_rules: Vec<Placed<DestinationRule>>,
    pub(crate) service_entries: Vec<Placed<ServiceEntry>>,
    pub(crate) workload_entries: Vec<Placed<WorkloadEntry>>,
    seen: HashMap<ResourceRef, Option<SourcePosition>>,
    count: usize,
}

/// Whether there is room for another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Left,
    /// This object is the first for which there is none.
    JustExhausted,
    Exhausted,
}

impl Room {
    /// What the first object without room is told.
    pub(crate) fn complaint() -> String {
        format!("there are more than {MAX_OBJECTS} objects")
    }
}

impl Objects {
    /// Adds what another state holds. Whether that is there already is not looked at.
    pub(crate) fn absorb(&mut self, other: &Self) {
        macro_rules! extend {
            ($($field:ident)*) => { $(self.$field.extend_from_slice(&other.$field);)* };
        }
        extend!(namespaces nodes runtime_classes service_accounts pods services endpoint_slices
            peer_authentications request_authentications authorization_policies mesh_configs rate_limits
            config_maps secrets backend_tls_policies gateway_routes reference_grants virtual_services
            destination_rules service_entries workload_entries);
    }

    /// Counts an object, of whatever kind.
    pub(crate) fn count(&mut self) -> Room {
        self.count = self.count.saturating_add(1);
        match self.count.checked_sub(MAX_OBJECTS) {
            None | Some(0) => Room::Left,
            Some(1) => Room::JustExhausted,
            Some(_) => Room::Exhausted,
        }
    }

    /// Where each object of a file stands.
    pub(crate) fn positions(&self) -> HashMap<ResourceRef, SourcePosition> {
        let placed = self.seen.iter();
        placed.filter_map(|(origin, at)| Some((origin.clone(), at.clone()?))).collect()
    }

    /// Takes note of an object; false, and an error, where it has been there before.
    pub(crate) fn claim(&mut self, subject: &Subject<'_>, report: &mut Report) -> bool {
        match self.seen.entry(subject.origin.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(subject.position.clone());
                true
            }
            Entry::Occupied(first) => {
                let message = match first.get() {
                    Some(position) => format!("is written twice; the first is at {position}"),
                    None => "is there twice".to_owned(),
                };
                report.error(subject, &[], "duplicate-object", message, "remove one of them");
                false
            }
        }
    }
}
