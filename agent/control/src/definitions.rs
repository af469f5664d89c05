//! The definitions of this mesh's own kinds, for API servers and for people. Their schemas are made of the very
//! shapes that objects are read with: what a definition lets pass is read, and nothing else is.
//!
//! Only what an API server can judge cheaply and by itself is in them; the rest is the webhook's and the agents'.

mod page;
mod structural;

use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::{
    kinds::Kind,
    security::{MeshConfigSpec, RateLimitSpec},
};
pub use page::definitions_page;
#[cfg(test)]
pub(crate) use tests::fields_are;

/// How users write the group of what is theirs to see at once: `kubectl get undermesh`.
const CATEGORY: &str = "undermesh";
/// Helm's, and no other tool's: to remove a definition is to remove all objects of the kind.
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// One of this mesh's own kinds.
struct OwnKind {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    about: &'static str,
    spec: fn() -> Value,
    columns: fn() -> Vec<Value>,
}

static OWN_KINDS: [OwnKind; 2] = [
    OwnKind {
        kind: "MeshConfig",
        plural: "meshconfigs",
        short: "meshcfg",
        about: "Whom policies with action CUSTOM may ask. Only the object `default` of the root namespace counts.",
        spec: schema::<MeshConfigSpec>,
        columns: Vec::new,
    },
    OwnKind {
        kind: "RateLimitPolicy",
        plural: "ratelimitpolicies",
        short: "rlp",
        about: "How much pods serve. In the root namespace it is about the whole mesh, elsewhere about its namespace.",
        spec: schema::<RateLimitSpec>,
        columns: || vec![column("Shadow", "boolean", ".spec.shadow", 0)],
    },
];

fn schema<T: JsonSchema>() -> Value {
    structural::schema::<T>()
}

fn column(name: &str, kind: &str, path: &str, priority: u8) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path, "priority": priority})
}

/// What the controller writes (`api_server/statuses.rs`).
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is wanted; the controller keeps what others write")]
struct Status {
    /// What is thought of the object, each by its type.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    conditions: Option<Vec<Condition>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "as above")]
struct Condition {
    /// `undermesh.io/Accepted` is this mesh's.
    #[schemars(length(min = 1, max = 316))]
    r#type: String,
    /// Whether that is so.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    status: String,
    /// One word for programs.
    #[schemars(length(max = 1024))]
    reason: String,
    /// What is wrong with the object, or works otherwise than it may be meant.
    #[schemars(length(max = 32768))]
    message: String,
    /// When `status` changed.
    #[schemars(extend("format" = "date-time"))]
    last_transition_time: String,
    /// The `metadata.generation` that was looked at.
    observed_generation: Option<i64>,
}

/// The definitions, as an API server takes them.
pub fn definitions() -> Vec<Value> {
    OWN_KINDS.iter().map(OwnKind::definition).collect()
}

impl OwnKind {
    fn api_version(&self) -> (&'static str, &'static str) {
        let read = Kind::find(self.kind).and_then(|kind| kind.description.api_versions.first());
        read.and_then(|version| version.split_once('/')).unwrap_or_default()
    }

    fn definition(&self) -> Value {
        let (group, version) = self.api_version();
        let mut columns = (self.columns)();
        let accepted = |field: &str| {
            format!(r#".status.conditions[?(@.type=="{}")].{field}"#, crate::ACCEPTED)
        };
        columns.push(column("Accepted", "string", &accepted("status"), 0));
        columns.push(column("Age", "date", ".metadata.creationTimestamp", 0));
        columns.push(column("Message", "string", &accepted("message"), 1));
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{group}", self.plural),
                "annotations": {KEEP.0: KEEP.1},
            },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_lowercase(),
                    "shortNames": [self.short],
                    "categories": [CATEGORY],
                },
                "versions": [{
                    "name": version,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": self.schema()},
                }],
            },
        })
    }

    fn schema(&self) -> Value {
        let mut status = schema::<Status>();
        status["description"] = json!("Written by the controller.");
        let mut spec = (self.spec)();
        spec["description"] = json!("What is wanted.");
        json!({
            "type": "object",
            "description": self.about,
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": spec,
                "status": status,
            },
        })
    }
}

#[cfg(test)]
mod tests;
