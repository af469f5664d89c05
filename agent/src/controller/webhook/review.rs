//! `admission.k8s.io/v1` AdmissionReview: what of one is read, and what is answered.

use serde::Deserialize;
use serde_json::{Value, json};

/// Longest answer in words: the API server shows it to a person.
const MAX_WORDS: usize = 4096;
/// Warnings that are shown, and how long one is (Kubernetes cuts them).
const MAX_WARNINGS: usize = 16;
const MAX_WARNING: usize = 256;

/// A review that was posted.
#[derive(Debug)]
pub(super) struct Review {
    request: Asked,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Option<Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    kind: Kind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    user_info: UserInfo,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: String,
}

/// What is said about an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// Why not, each in full.
    pub(super) refusals: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Verdict {
    pub(super) fn allowed(warnings: Vec<String>) -> Self {
        Self { allowed: true, refusals: Vec::new(), warnings }
    }

    pub(super) fn new(refusals: Vec<String>, warnings: Vec<String>) -> Self {
        Self { allowed: refusals.is_empty(), refusals, warnings }
    }
}

impl Review {
    /// Reads a review; an error says why it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_slice(body)
            .map_err(|error| format!("this is no AdmissionReview: {error}"))?;
        let (version, kind) = (&envelope.api_version, &envelope.kind);
        if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
            return Err(format!(
                "{kind} of {version} is not AdmissionReview of admission.k8s.io/v1"
            ));
        }
        let request = envelope.request.ok_or("the review has no request")?;
        Ok(Self { request })
    }

    /// The object, if it is one that is judged: what is deleted is not, nor what only a controller writes.
    pub(super) fn judged(&self) -> Option<&Value> {
        let Asked { operation, sub_resource, object, .. } = &self.request;
        let written = matches!(operation.as_str(), "CREATE" | "UPDATE") && sub_resource.is_empty();
        // One that is on its way out must not be kept from it.
        let is_leaving = !object["metadata"]["deletionTimestamp"].is_null();
        (written && object.is_object() && !is_leaving).then_some(object)
    }

    pub(super) fn operation(&self) -> &str {
        &self.request.operation
    }

    pub(super) fn user(&self) -> &str {
        &self.request.user_info.username
    }

    /// Kind, namespace and name.
    pub(super) fn object(&self) -> (String, String, String) {
        let Asked { kind, namespace, name, object, .. } = &self.request;
        let named = object["metadata"]["name"].as_str().unwrap_or(name);
        (kind.kind.clone(), namespace.clone(), named.to_owned())
    }

    pub(super) fn name(&self) -> String {
        let (kind, namespace, name) = self.object();
        format!("{kind} {namespace}/{name}")
    }

    /// The answer, as JSON.
    pub(super) fn answer(&self, verdict: &Verdict) -> String {
        let mut response = json!({"uid": self.request.uid, "allowed": verdict.allowed});
        if !verdict.allowed {
            let words: String = verdict.refusals.join("\n").chars().take(MAX_WORDS).collect();
            response["status"] = json!({"code": 422, "reason": "Invalid", "message": words});
        }
        let warnings = verdict.warnings.iter().take(MAX_WARNINGS);
        let warnings: Vec<String> =
            warnings.map(|text| text.chars().take(MAX_WARNING).collect()).collect();
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
        });
        review.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(request: Value) -> Result<Review, String> {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        Review::read(review.to_string().as_bytes())
    }

    fn request(operation: &str) -> Value {
        json!({
            "uid": "1", "operation": operation, "kind": {"kind": "VirtualService"},
            "namespace": "shop", "name": "a", "object": {"metadata": {"name": "a"}},
        })
    }

    #[test]
    fn what_is_written_is_judged_and_what_goes_is_not() {
        for (operation, judged) in [("CREATE", true), ("UPDATE", true), ("DELETE", false)] {
            assert_eq!(review(request(operation)).unwrap().judged().is_some(), judged);
        }
        let mut leaving = request("UPDATE");
        leaving["object"]["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(review(leaving).unwrap().judged().is_none());
        let mut status = request("UPDATE");
        status["subResource"] = json!("status");
        assert!(review(status).unwrap().judged().is_none());
    }

    #[test]
    fn what_is_no_review_is_refused_in_words() {
        for (body, part) in [
            ("", "no AdmissionReview"),
            (
                "{\"apiVersion\":\"admission.k8s.io/v1beta1\",\"kind\":\"AdmissionReview\"}",
                "v1beta1",
            ),
            ("{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\"}", "no request"),
        ] {
            let refused = Review::read(body.as_bytes()).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn an_answer_has_the_requests_uid_and_bounded_words() {
        let review = review(request("CREATE")).unwrap();
        let verdict = Verdict::new(vec!["x".repeat(9000)], vec!["w".repeat(999); 99]);
        let answer: Value = serde_json::from_str(&review.answer(&verdict)).unwrap();
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("1"), &json!(false)));
        assert_eq!(response["status"]["message"].as_str().unwrap().len(), MAX_WORDS);
        assert_eq!(response["warnings"].as_array().unwrap().len(), MAX_WARNINGS);
        assert_eq!(response["warnings"][0].as_str().unwrap().len(), MAX_WARNING);
    }
}
