//! BackendTLSPolicy, as it is written.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::fields::Known;

pub(super) const KNOWN: [Known; 6] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["targetRefs", "validation", "options"]),
    ("spec.targetRefs.[]", &["group", "kind", "name", "sectionName"]),
    (
        "spec.validation",
        &["caCertificateRefs", "wellKnownCACertificates", "hostname", "subjectAltNames"],
    ),
    ("spec.validation.caCertificateRefs.[]", &["group", "kind", "name"]),
    ("spec.validation.subjectAltNames.[]", &["type", "hostname", "uri"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BackendTlsPolicy {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) target_refs: Vec<TargetRef>,
    pub(super) validation: Validation,
    pub(super) options: Option<BTreeMap<String, String>>,
}

/// `LocalPolicyTargetReferenceWithSectionName`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetRef {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) section_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Validation {
    #[serde(default)]
    pub(super) ca_certificate_refs: Vec<ObjectRef>,
    #[serde(rename = "wellKnownCACertificates")]
    pub(super) well_known_ca_certificates: Option<String>,
    pub(super) hostname: String,
    #[serde(default)]
    pub(super) subject_alt_names: Vec<SubjectAltName>,
}

/// `LocalObjectReference`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ObjectRef {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SubjectAltName {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) hostname: Option<String>,
    pub(super) uri: Option<String>,
}
