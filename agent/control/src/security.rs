//! Istio's security objects, and this mesh's own beside them: their shape here, their meaning in one file per kind.
//!
//! The shapes are strict where Kubernetes is (a wrong type rejects the state) and lenient where it
//! is (a field that nobody knows is reported and has no effect).

mod authorization_policy;
mod mesh_config;
mod peer_authentication;
mod rate_limit_policy;
mod request_authentication;

pub(crate) use authorization_policy::{AuthorizationPolicy, authorization_policy};
pub(crate) use mesh_config::{
    MESH_CONFIG_VERSIONS, MeshConfig, Spec as MeshConfigSpec, mesh_config,
};
pub(crate) use peer_authentication::{PeerAuthentication, peer_authentication};
pub(crate) use rate_limit_policy::{RateLimitPolicy, Spec as RateLimitSpec, rate_limit_policy};
pub(crate) use request_authentication::{RequestAuthentication, request_authentication};

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::report::{Report, Subject};

/// The versions of the group that say the same.
pub(crate) const API_VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];

/// The version of the kinds that are this mesh's own.
pub(crate) const OWN_VERSIONS: [&str; 1] = ["undermesh.io/v1alpha1"];

/// `selector`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Selector {
    /// Labels that pods have.
    match_labels: BTreeMap<String, String>,
}

fn labels(selector: Option<&Selector>) -> BTreeMap<String, String> {
    selector.map(|selector| selector.match_labels.clone()).unwrap_or_default()
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Reports a mistake that rejects the state.
fn invalid(
    report: &mut Report,
    subject: &Subject<'_>,
    path: &[&str],
    message: String,
    remedy: &str,
) {
    report.error(subject, path, "invalid-policy", message, remedy);
}

#[cfg(test)]
mod tests;
