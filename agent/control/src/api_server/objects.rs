//! Objects of any kind, by where they are: what installs and removes the mesh, and looks at a whole cluster.

use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{ApiError, ApiServer};

/// Who owns the fields that are set here.
const MANAGER: &str = "undermesh";

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPath {
    /// The API group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The resource: the kind as paths and rights have it.
    pub resource: String,
    /// The namespace; empty for what is in none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectPath {
    /// Of an object of a manifest; those of namespaced kinds say their namespace there.
    pub fn of(object: &Value) -> Option<Self> {
        let api_version = object["apiVersion"].as_str()?;
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: plural(object["kind"].as_str()?),
            namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        })
    }

    fn path(&self) -> String {
        let Self { group, version, resource, namespace, name } = self;
        let base = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let within =
            if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        format!("{base}{within}/{resource}/{name}")
    }
}

/// English, as far as Kubernetes' own kinds need it.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}

impl ApiServer {
    /// Major and minor version.
    ///
    /// # Errors
    /// Where the server cannot be asked, or says none.
    pub async fn version(&self) -> Result<(u32, u32), ApiError> {
        let said: Value = self.get("/version").await?;
        // Some add a sign: `30+`.
        let number = |field: &str| {
            let text = said[field].as_str()?.trim_end_matches(|c: char| !c.is_ascii_digit());
            text.parse().ok()
        };
        let version = number("major").zip(number("minor"));
        version.ok_or_else(|| ApiError::Lost(format!("this is no version: {said}")))
    }

    /// Whether who asks may do something; `name` may be empty.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn may(&self, verb: &str, object: &ObjectPath) -> Result<bool, ApiError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb, "group": object.group, "resource": object.resource,
                "namespace": object.namespace, "name": object.name,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer: Value = self.create(path, &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }

    /// One object, `None` where it, or its kind, is not there.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn object(&self, object: &ObjectPath) -> Result<Option<Value>, ApiError> {
        self.find(&object.path()).await
    }

    /// Objects of a list by its path (`/apis/apps/v1/daemonsets`), all pages; none where there is no such kind.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn objects(&self, path: &str, selector: &str) -> Result<Vec<Value>, ApiError> {
        match self.all(path, selector).await {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            found => found,
        }
    }

    /// Server-side apply: makes the object, or changes the fields that are given. A field that somebody else has set
    /// to something else is a conflict, unless it is taken by `force`.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn apply(&self, object: &Value, force: bool) -> Result<Value, ApiError> {
        let Some(place) = ObjectPath::of(object) else {
            return Err(ApiError::Lost("an object without kind or name".to_owned()));
        };
        let path = format!("{}?fieldManager={MANAGER}&force={force}", place.path());
        self.write(Method::PATCH, &path, object, "application/apply-patch+yaml").await
    }

    /// Asks whether an object would be taken; nothing is stored.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn try_apply(&self, object: &Value) -> Result<(), ApiError> {
        let Some(place) = ObjectPath::of(object) else {
            return Err(ApiError::Lost("an object without kind or name".to_owned()));
        };
        let path = format!("{}?fieldManager={MANAGER}&dryRun=All", place.path());
        self.write::<IgnoredAny>(Method::PATCH, &path, object, "application/apply-patch+yaml")
            .await
            .map(|_| ())
    }

    /// Removes an object, and what belongs to it in the background; false where there was none.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn remove(&self, object: &ObjectPath) -> Result<bool, ApiError> {
        let options = json!({"propagationPolicy": "Background"});
        let sent: Result<IgnoredAny, _> =
            self.write(Method::DELETE, &object.path(), &options, "application/json").await;
        match sent {
            Err(error) if error.is_missing() => Ok(false),
            sent => sent.map(|_| true),
        }
    }

    /// A page of a pod, asked for by the API server: the metrics of an agent, for example.
    ///
    /// # Errors
    /// Where the server or the pod cannot be asked, or refuses.
    pub async fn pod_page(
        &self,
        (namespace, pod): (&str, &str),
        port: u16,
        page: &str,
    ) -> Result<String, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{page}");
        let bytes = self.exchange(Method::GET, &path, None, "").await?;
        String::from_utf8(bytes.to_vec()).map_err(ApiError::lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_their_kind_and_namespace_say() {
        for (object, path) in [
            (
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
                "/api/v1/namespaces/a",
            ),
            (
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"name": "a", "namespace": "b"}}),
                "/apis/networking.k8s.io/v1/namespaces/b/networkpolicies/a",
            ),
            (
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                    "metadata": {"name": "a"}}),
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/a",
            ),
            (
                json!({"apiVersion": "example.com/v1", "kind": "Address", "metadata": {"name": "a"}}),
                "/apis/example.com/v1/addresses/a",
            ),
        ] {
            assert_eq!(ObjectPath::of(&object).unwrap().path(), path);
        }
        assert_eq!(ObjectPath::of(&json!({"kind": "Pod"})), None);
    }
}
