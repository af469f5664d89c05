//! From texts to typed Kubernetes objects, with the place where each stands.

use std::path::Path;

use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use serde::{Deserialize, de::DeserializeOwned};
use undermesh_model::{ResourceRef, SourcePosition};

use crate::{
    documents::{Document, split},
    report::{Report, Subject},
    security::{self, AuthorizationPolicy, PeerAuthentication},
};

/// Objects that one state may hold.
const MAX_OBJECTS: usize = 200_000;

/// An object and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) object: T,
    pub(crate) origin: ResourceRef,
    pub(crate) position: SourcePosition,
    /// As it was written, for kinds that are checked for fields that nobody knows.
    pub(crate) text: String,
}

impl<T> Placed<T> {
    pub(crate) fn subject(&self) -> Subject {
        Subject::object(&self.origin, &self.position)
    }
}

/// The objects of a state, by kind.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub(crate) namespaces: Vec<Placed<Namespace>>,
    pub(crate) nodes: Vec<Placed<Node>>,
    pub(crate) service_accounts: Vec<Placed<ServiceAccount>>,
    pub(crate) pods: Vec<Placed<Pod>>,
    pub(crate) services: Vec<Placed<Service>>,
    pub(crate) endpoint_slices: Vec<Placed<EndpointSlice>>,
    pub(crate) peer_authentications: Vec<Placed<PeerAuthentication>>,
    pub(crate) authorization_policies: Vec<Placed<AuthorizationPolicy>>,
    count: usize,
}

/// What every object begins with.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: String,
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

/// Reads the manifests in `text`, which came from `path`, into `objects`.
pub fn parse_manifests(text: &str, path: &Path, objects: &mut Objects, report: &mut Report) {
    for document in split(text) {
        let reader = Reader { path, document };
        reader.read(objects, report);
    }
}

struct Reader<'a> {
    path: &'a Path,
    document: Document<'a>,
}

impl Reader<'_> {
    fn position(&self, line: usize) -> SourcePosition {
        SourcePosition { file: self.path.to_owned(), line: self.document.lines_before + line }
    }

    /// The first line that says something.
    fn start(&self) -> SourcePosition {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        self.position(self.document.text.lines().take_while(blank).count() + 1)
    }

    fn failed(
        &self,
        error: &serde_yaml_ng::Error,
        object: Option<ResourceRef>,
        report: &mut Report,
    ) {
        let position = error.location().map_or_else(|| self.start(), |at| self.position(at.line()));
        let subject = Subject { object, position: Some(position) };
        let remedy = "correct the manifest; the last good state stays in force until then";
        report.error(&subject, "malformed-manifest", reason(error), remedy);
    }

    fn read(&self, objects: &mut Objects, report: &mut Report) {
        match serde_yaml_ng::from_str::<Head>(self.document.text) {
            Ok(head) if head.kind == "List" || head.kind.ends_with("List") => {
                self.read_list(objects, report);
            }
            Ok(head) => self.read_object(&head, self.document.text, objects, report),
            Err(error) => self.failed(&error, None, report),
        }
    }

    /// The items of a List, each through its own text; they are placed where the List is.
    fn read_list(&self, objects: &mut Objects, report: &mut Report) {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<serde_yaml_ng::Value>,
        }
        let list: List = match serde_yaml_ng::from_str(self.document.text) {
            Ok(list) => list,
            Err(error) => return self.failed(&error, None, report),
        };
        for item in list.items {
            let parsed = serde_yaml_ng::to_string(&item)
                .and_then(|text| Ok((serde_yaml_ng::from_str::<Head>(&text)?, text)));
            match parsed {
                Ok((head, text)) => self.read_object(&head, &text, objects, report),
                Err(error) => self.failed(&error, None, report),
            }
        }
    }

    fn read_object(&self, head: &Head, text: &str, objects: &mut Objects, report: &mut Report) {
        objects.count += 1;
        let place = Subject::place(self.start());
        if objects.count > MAX_OBJECTS {
            if objects.count == MAX_OBJECTS + 1 {
                let message = format!("more than {MAX_OBJECTS} objects");
                report.error(&place, "too-many-objects", message, "remove some");
            }
            return;
        }
        if head.kind.is_empty() || head.metadata.name.is_empty() {
            let what = if head.kind.is_empty() { "kind" } else { "metadata.name" };
            let message = format!("this document has no {what}");
            return report.error(
                &place,
                "malformed-manifest",
                message,
                "write a Kubernetes object",
            );
        }
        match head.kind.as_str() {
            "Namespace" => {
                self.typed(head, "Namespace", "v1", text, &mut objects.namespaces, report);
            }
            "Node" => self.typed(head, "Node", "v1", text, &mut objects.nodes, report),
            "ServiceAccount" => {
                self.typed(
                    head,
                    "ServiceAccount",
                    "v1",
                    text,
                    &mut objects.service_accounts,
                    report,
                );
            }
            "Pod" => self.typed(head, "Pod", "v1", text, &mut objects.pods, report),
            "Service" => self.typed(head, "Service", "v1", text, &mut objects.services, report),
            "EndpointSlice" => {
                let version = "discovery.k8s.io/v1";
                self.typed(
                    head,
                    "EndpointSlice",
                    version,
                    text,
                    &mut objects.endpoint_slices,
                    report,
                );
            }
            "PeerAuthentication" if is_istio(head) => {
                let into = &mut objects.peer_authentications;
                self.security(head, "PeerAuthentication", text, into, report);
            }
            "AuthorizationPolicy" if is_istio(head) => {
                let into = &mut objects.authorization_policies;
                self.security(head, "AuthorizationPolicy", text, into, report);
            }
            kind => {
                let message = format!(
                    "{kind} {:?} is of a kind that this version does not read",
                    head.metadata.name
                );
                report.warning(&place, "unread-kind", message, "it has no effect");
            }
        }
    }

    /// An object of Istio's; its text is kept.
    fn security<T: DeserializeOwned>(
        &self,
        head: &Head,
        kind: &'static str,
        text: &str,
        into: &mut Vec<Placed<T>>,
        report: &mut Report,
    ) {
        let version = security::API_VERSIONS.into_iter().find(|it| *it == head.api_version);
        let before = into.len();
        self.typed(head, kind, version.unwrap_or(security::API_VERSIONS[0]), text, into, report);
        for placed in &mut into[before..] {
            text.clone_into(&mut placed.text);
        }
    }

    fn typed<T: DeserializeOwned>(
        &self,
        head: &Head,
        kind: &'static str,
        api_version: &str,
        text: &str,
        into: &mut Vec<Placed<T>>,
        report: &mut Report,
    ) {
        let origin = origin(kind, &head.metadata);
        if head.api_version != api_version {
            let subject = Subject::object(&origin, &self.start());
            let message = format!("apiVersion is {:?} instead of {api_version}", head.api_version);
            return report.error(&subject, "unknown-api-version", message, "correct apiVersion");
        }
        match serde_yaml_ng::from_str::<T>(text) {
            Ok(object) => {
                into.push(Placed { object, origin, position: self.start(), text: String::new() });
            }
            Err(error) => self.failed(&error, Some(origin), report),
        }
    }
}

/// Other groups have kinds of the same names.
fn is_istio(head: &Head) -> bool {
    head.api_version.starts_with("security.istio.io/")
}

fn origin(kind: &'static str, metadata: &Metadata) -> ResourceRef {
    match kind {
        "Namespace" | "Node" => ResourceRef::cluster_scoped(kind, &metadata.name),
        _ => {
            let namespace = metadata.namespace.as_deref().unwrap_or("default");
            ResourceRef::namespaced(kind, namespace, &metadata.name)
        }
    }
}

/// The parser's words without the position within the document, which would be off by the lines
/// before it.
fn reason(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
