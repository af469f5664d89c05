//! What is watched: a kind in one version, all of its objects or some of them.

use std::{fmt, sync::Arc};

use super::discovery::Served;
use crate::kinds::Kind;

/// The name of a slot, in status, metrics and the cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId(Arc<str>);

impl SlotId {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One list that is kept up to date.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    /// `None` for what is watched for its changes alone.
    pub(crate) kind: Option<&'static Kind>,
    pub(crate) api_version: String,
    pub(crate) path: String,
    /// A field selector; empty for all objects.
    pub(crate) fields: String,
    /// Only metadata is of interest, and all that is transferred.
    pub(crate) metadata_only: bool,
    /// Whoever is not allowed to read it goes without.
    pub(crate) dispensable: bool,
    /// It is there because discovery has found it.
    pub(crate) optional: bool,
    /// It is there because an object names what is in it.
    pub(crate) by_name: bool,
}

/// Kinds of the core and of what every cluster has: name, path, whether metadata is enough.
const ALWAYS: [(&str, &str, bool); 5] = [
    ("Namespace", "/api/v1/namespaces", true),
    ("Node", "/api/v1/nodes", false),
    ("ServiceAccount", "/api/v1/serviceaccounts", true),
    ("Service", "/api/v1/services", false),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices", false),
];

impl Slot {
    /// What is watched in any case. This node's pods have a list of their own: it is short, and new ones are
    /// seen early, however many pods there are elsewhere.
    pub(crate) fn always(node: &str) -> Vec<Self> {
        let mut slots = Self::but_pods();
        for (id, fields) in [
            ("pod/here", format!("spec.nodeName={node}")),
            ("pod/elsewhere", format!("spec.nodeName!={node}")),
        ] {
            slots.extend(
                Kind::find("Pod")
                    .map(|kind| Self { fields, ..Self::whole(id, kind, "/api/v1/pods") }),
            );
        }
        slots
    }

    /// The same for who is on no node: all pods are one list.
    pub(crate) fn cluster() -> Vec<Self> {
        let mut slots = Self::but_pods();
        slots.extend(Kind::find("Pod").map(|kind| Self::whole("pod", kind, "/api/v1/pods")));
        slots
    }

    fn but_pods() -> Vec<Self> {
        let slots = ALWAYS.iter().filter_map(|(kind, path, metadata_only)| {
            let slot = Self::whole(&kind.to_lowercase(), Kind::find(kind)?, path);
            Some(Self { metadata_only: *metadata_only, ..slot })
        });
        slots.collect()
    }

    /// What discovery has found.
    pub(crate) fn served(served: &Served) -> Self {
        let Served { kind, api_version, plural } = served;
        let path = format!("/apis/{api_version}/{plural}");
        let id = kind.description.kind.to_lowercase();
        Self { api_version: api_version.clone(), optional: true, ..Self::whole(&id, kind, &path) }
    }

    /// Definitions of kinds: that there is another is all that they say here.
    pub(crate) fn definitions() -> Self {
        let api_version = "apiextensions.k8s.io/v1";
        Self {
            id: SlotId::new("customresourcedefinition"),
            kind: None,
            api_version: api_version.to_owned(),
            path: format!("/apis/{api_version}/customresourcedefinitions"),
            fields: String::new(),
            metadata_only: true,
            dispensable: true,
            optional: false,
            by_name: false,
        }
    }

    /// Secrets of one name, in all namespaces: the name is what DestinationRules know.
    pub(crate) fn secrets(name: &str) -> Option<Self> {
        let id = format!("secret/{name}");
        Some(Self {
            fields: format!("metadata.name={name}"),
            dispensable: true,
            by_name: true,
            ..Self::whole(&id, Kind::find("Secret")?, "/api/v1/secrets")
        })
    }

    /// One ConfigMap.
    pub(crate) fn config_map(namespace: &str, name: &str) -> Option<Self> {
        let id = format!("configmap/{namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        Some(Self {
            fields: format!("metadata.name={name}"),
            dispensable: true,
            by_name: true,
            ..Self::whole(&id, Kind::find("ConfigMap")?, &path)
        })
    }

    fn whole(id: &str, kind: &'static Kind, path: &str) -> Self {
        Self {
            id: SlotId::new(id),
            kind: Some(kind),
            api_version: kind.api_version().to_owned(),
            path: path.to_owned(),
            fields: String::new(),
            metadata_only: false,
            dispensable: false,
            optional: false,
            by_name: false,
        }
    }

    /// Where to ask, with these parameters.
    pub(crate) fn query(&self, parameters: &[(&str, &str)]) -> String {
        let own = [("fieldSelector", self.fields.as_str())];
        let all = own.iter().chain(parameters).filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> =
            all.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        if pairs.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, pairs.join("&"))
        }
    }

    /// What is accepted as a list, and as events.
    pub(crate) fn accept(&self, list: bool) -> &'static str {
        match (self.metadata_only, list) {
            (false, _) => "application/json",
            (true, true) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
            (true, false) => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
            }
        }
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_this_node_are_a_list_of_their_own_and_no_pod_is_in_both() {
        let slots = Slot::always("n-1.example");
        let queries: Vec<String> = slots.iter().map(|slot| slot.query(&[("limit", "5")])).collect();
        assert!(
            queries
                .contains(&"/api/v1/pods?fieldSelector=spec.nodeName%3Dn-1.example&limit=5".into())
        );
        assert!(
            queries.contains(
                &"/api/v1/pods?fieldSelector=spec.nodeName%21%3Dn-1.example&limit=5".into()
            )
        );
        assert!(queries.contains(&"/api/v1/namespaces?limit=5".to_owned()));
    }
}
