//! The shape of a ServiceEntry, as Istio's `networking/v1/service_entry.proto` gives it.

use std::{collections::BTreeMap, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::traffic::workload_entry::Endpoint;

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceEntry {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) hosts: Vec<String>,
    pub(super) addresses: Vec<String>,
    pub(super) ports: Vec<Port>,
    pub(super) location: Located,
    pub(super) resolution: Resolved,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) workload_selector: Option<Selector>,
    pub(super) export_to: Vec<String>,
    pub(super) subject_alt_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub(super) number: Option<NonZeroU16>,
    pub(super) protocol: String,
    pub(super) name: String,
    /// 0 is as if it were not there.
    pub(super) target_port: u16,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Located {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Resolved {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

impl Resolved {
    /// Whether names of endpoints, or the hosts, are resolved.
    pub(super) fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Selector {
    pub(super) labels: BTreeMap<String, String>,
}
