//! Istio's and the Gateway API's traffic objects: their shape here, their meaning in one file per kind.
//! What they say ends in the nouns of `undermesh_model::traffic`.

mod common;
mod destination_rule;
pub(crate) mod gateway;
mod istio;
mod place;
mod service_entry;
mod virtual_service;
mod workload_entry;

pub(crate) use common::duration;
pub(crate) use destination_rule::{DestinationRule, destination_rule};
pub(crate) use service_entry::{ServiceEntry, service_entry};
pub(crate) use virtual_service::{Draft, VirtualService, resolve, virtual_service};
pub(crate) use workload_entry::{WorkloadEntry, workload_entry};

/// The versions of Istio's group that say the same.
pub(crate) const ISTIO_VERSIONS: [&str; 3] =
    ["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"];
