//! What is said about objects in their own status: conditions, in the form that the Gateway API and Istio
//! have for them. Those of others stay as they are.

use serde_json::{Value, json};
use undermesh_model::{Diagnostic, Severity};

use super::{ApiError, ApiServer, Keeping, secrets::kept};

/// How this controller is called in the statuses of routes.
pub const CONTROLLER: &str = "undermesh.io/controller";
/// The condition of all other kinds; `Accepted` may be another mesh's.
pub const ACCEPTED: &str = "undermesh.io/Accepted";
/// Longest message of a condition (Gateway API: 32768).
const MAX_MESSAGE: usize = 4096;
/// Objects of a list that come at once, and pages that are read.
const PAGE: u32 = 500;
const MAX_PAGES: usize = 200;

/// A kind whose objects get a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JudgedKind {
    /// The kind.
    pub kind: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
    /// It has a status for each parent.
    is_route: bool,
}

const fn route(kind: &'static str, plural: &'static str) -> JudgedKind {
    let versions = &["v1", "v1alpha2", "v1beta1"];
    JudgedKind { kind, group: "gateway.networking.k8s.io", versions, plural, is_route: true }
}

const fn istio(group: &'static str, kind: &'static str, plural: &'static str) -> JudgedKind {
    JudgedKind { kind, group, versions: &["v1", "v1beta1"], plural, is_route: false }
}

const fn own(kind: &'static str, plural: &'static str) -> JudgedKind {
    JudgedKind { kind, group: "undermesh.io", versions: &["v1alpha1"], plural, is_route: false }
}

/// The kinds whose objects get a status.
pub static JUDGED_KINDS: [JudgedKind; 12] = [
    route("HTTPRoute", "httproutes"),
    route("GRPCRoute", "grpcroutes"),
    route("TCPRoute", "tcproutes"),
    route("TLSRoute", "tlsroutes"),
    istio("networking.istio.io", "VirtualService", "virtualservices"),
    istio("networking.istio.io", "DestinationRule", "destinationrules"),
    istio("networking.istio.io", "ServiceEntry", "serviceentries"),
    istio("security.istio.io", "PeerAuthentication", "peerauthentications"),
    istio("security.istio.io", "RequestAuthentication", "requestauthentications"),
    istio("security.istio.io", "AuthorizationPolicy", "authorizationpolicies"),
    own("RateLimitPolicy", "ratelimitpolicies"),
    own("MeshConfig", "meshconfigs"),
];

/// Objects that others are about, without a status of this controller.
const CONTEXT: [(&str, &str, &str); 3] = [
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/services", "v1", "Service"),
    (
        "/apis/gateway.networking.k8s.io/v1beta1/referencegrants",
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
    ),
];

/// An object with the status that it should have.
#[derive(Clone, Debug)]
pub struct StatusWrite {
    path: String,
    object: Value,
}

impl StatusWrite {
    /// The object as it is to be.
    pub fn object(&self) -> &Value {
        &self.object
    }
}

impl ApiServer {
    /// Every object of a kind; none where the server does not have it.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn judged(&self, kind: &JudgedKind) -> Result<Vec<Value>, ApiError> {
        for version in kind.versions {
            let api_version = format!("{}/{version}", kind.group);
            match self.all(&format!("/apis/{api_version}/{}", kind.plural), "").await {
                Err(error) if error.is_missing() => {}
                found => {
                    let mut found = found?;
                    for object in &mut found {
                        object["apiVersion"] = json!(api_version);
                        object["kind"] = json!(kind.kind);
                    }
                    return Ok(found);
                }
            }
        }
        Ok(Vec::new())
    }

    /// What judged objects are about, as far as that is not judged itself.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn context(&self) -> Result<Vec<Value>, ApiError> {
        let mut found = Vec::new();
        for (path, api_version, kind) in CONTEXT {
            let list = match self.all(path, "").await {
                Err(error) if error.is_missing() => continue,
                list => list?,
            };
            found.extend(list.into_iter().map(|mut object| {
                object["apiVersion"] = json!(api_version);
                object["kind"] = json!(kind);
                object
            }));
        }
        Ok(found)
    }

    /// All pages of a list; of objects with these labels, where there are any.
    pub(super) async fn all(&self, path: &str, labels: &str) -> Result<Vec<Value>, ApiError> {
        let (mut all, mut token) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let mut page: Value = self
                .get(&format!("{path}?limit={PAGE}&labelSelector={labels}&continue={token}"))
                .await?;
            if let Some(items) = page["items"].as_array_mut() {
                all.append(items);
            }
            token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return Ok(all);
            }
        }
        Err(ApiError::Lost(format!("{path} has too many objects")))
    }

    /// Reads an object again, after somebody else has written it.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn again(&self, write: &StatusWrite) -> Result<Option<Value>, ApiError> {
        self.find(&write.path).await
    }

    /// Writes a status, if nobody has written the object since it was read.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn write_status(&self, write: &StatusWrite) -> Result<Keeping, ApiError> {
        kept(self.update(&format!("{}/status", write.path), &write.object).await)
    }
}

impl JudgedKind {
    /// The object with the status that follows from what was found about it; `None` where it has that.
    /// `now` is RFC 3339.
    pub fn status(
        &self,
        object: &Value,
        findings: &[Diagnostic],
        now: &str,
    ) -> Option<StatusWrite> {
        let metadata = &object["metadata"];
        let (namespace, name) = (metadata["namespace"].as_str()?, metadata["name"].as_str()?);
        let about: Vec<&Diagnostic> = findings
            .iter()
            .filter(|found| {
                found.object.as_ref().is_some_and(|it| {
                    it.kind == self.kind && it.namespace == namespace && it.name == name
                })
            })
            .collect();
        let mut wanted = object.clone();
        if self.is_route {
            route_status(&mut wanted, &about, now);
        } else {
            let generation = &object["metadata"]["generation"];
            let condition = accepted(ACCEPTED, &about, generation);
            set(&mut wanted["status"]["conditions"], condition, now);
        }
        if wanted == *object {
            return None;
        }
        let api_version = object["apiVersion"].as_str()?;
        let plural = self.plural;
        let path = format!("/apis/{api_version}/namespaces/{namespace}/{plural}/{name}");
        Some(StatusWrite { path, object: wanted })
    }
}

/// A status for each parent that is a Service: those are the mesh's.
fn route_status(route: &mut Value, about: &[&Diagnostic], now: &str) {
    let namespace = route["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let generation = route["metadata"]["generation"].clone();
    let parents = route["spec"]["parentRefs"].as_array().cloned().unwrap_or_default();
    let ours: Vec<Value> = parents.into_iter().filter(is_service).collect();
    let before = route["status"]["parents"].as_array().cloned().unwrap_or_default();
    let is_own = |status: &&Value| status["controllerName"] == CONTROLLER;
    let mut after: Vec<Value> = before.iter().filter(|it| !is_own(it)).cloned().collect();
    for parent in ours {
        let former = before.iter().find(|it| is_own(it) && it["parentRef"] == parent);
        let mut status = former.cloned().unwrap_or_else(
            || json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": []}),
        );
        let parent_namespace = parent["namespace"].as_str().unwrap_or(&namespace);
        let service =
            format!("Service {parent_namespace}/{}", parent["name"].as_str().unwrap_or_default());
        set(&mut status["conditions"], parent_accepted(about, &service, &generation), now);
        set(&mut status["conditions"], resolved(about, &generation), now);
        after.push(status);
    }
    if after.is_empty() && before.is_empty() {
        return;
    }
    // In the order in which they were: others write here as well, and would write again.
    let place = |status: &Value| {
        before.iter().position(|it| {
            it["parentRef"] == status["parentRef"]
                && it["controllerName"] == status["controllerName"]
        })
    };
    after.sort_by_key(|status| place(status).unwrap_or(usize::MAX));
    route["status"]["parents"] = Value::Array(after);
}

fn is_service(parent: &Value) -> bool {
    parent["kind"] == "Service" && parent["group"].as_str().unwrap_or("x").is_empty()
}

fn condition(kind: &str, good: bool, reason: &str, message: String, generation: &Value) -> Value {
    let status = if good { "True" } else { "False" };
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": generation,
    })
}

/// False where the object cannot be used; what works otherwise than it may be meant is told as well.
fn accepted(kind: &str, about: &[&Diagnostic], generation: &Value) -> Value {
    let errors = of(about, |found| found.severity == Severity::Error);
    if !errors.is_empty() {
        return condition(kind, false, "Invalid", errors, generation);
    }
    let warnings = of(about, |found| found.severity == Severity::Warning);
    condition(kind, true, "Accepted", warnings, generation)
}

fn parent_accepted(about: &[&Diagnostic], service: &str, generation: &Value) -> Value {
    let is_about_parent = |found: &Diagnostic| {
        // The name ends there, or another one begins with it.
        let rest = found.message.split_once(service).map(|(_, rest)| rest);
        found.code == "unknown-parent"
            && rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    };
    let absent = of(about, is_about_parent);
    if !absent.is_empty() {
        return condition("Accepted", false, "NoMatchingParent", absent, generation);
    }
    let is_value =
        |found: &Diagnostic| found.severity == Severity::Error && unresolved(found).is_none();
    let errors = of(about, is_value);
    if !errors.is_empty() {
        return condition("Accepted", false, "UnsupportedValue", errors, generation);
    }
    let is_other = |found: &Diagnostic| {
        found.severity == Severity::Warning
            && found.code != "unknown-parent"
            && unresolved(found).is_none()
    };
    condition("Accepted", true, "Accepted", of(about, is_other), generation)
}

fn resolved(about: &[&Diagnostic], generation: &Value) -> Value {
    let reason = about.iter().find_map(|found| unresolved(found));
    match reason {
        None => condition("ResolvedRefs", true, "ResolvedRefs", String::new(), generation),
        Some(reason) => {
            let words = of(about, |found| unresolved(found).is_some());
            condition("ResolvedRefs", false, reason, words, generation)
        }
    }
}

/// The Gateway API's word for a reference that leads nowhere.
fn unresolved(found: &Diagnostic) -> Option<&'static str> {
    match found.code {
        "backend-not-found" | "unusable-destination" => Some("BackendNotFound"),
        "reference-not-permitted" => Some("RefNotPermitted"),
        "unsupported-backend" => Some("InvalidKind"),
        _ => None,
    }
}

fn of(about: &[&Diagnostic], is_meant: impl Fn(&Diagnostic) -> bool) -> String {
    let words = about.iter().filter(|found| is_meant(found)).map(|found| {
        let remedy = if found.remedy.is_empty() { "" } else { "; " };
        format!("{} [{}]{remedy}{}", found.message, found.code, found.remedy)
    });
    words.collect::<Vec<_>>().join("\n")
}

/// Puts a condition in its place. It keeps its time while it says the same.
fn set(conditions: &mut Value, mut condition: Value, now: &str) {
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let former = list.iter_mut().find(|it| it["type"] == condition["type"]);
    let time = former.as_ref().filter(|it| it["status"] == condition["status"]);
    let time = time.map(|it| it["lastTransitionTime"].clone()).filter(Value::is_string);
    condition["lastTransitionTime"] = time.unwrap_or_else(|| json!(now));
    match former {
        Some(former) => *former = condition,
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests;
