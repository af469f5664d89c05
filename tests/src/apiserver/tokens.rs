//! Tokens: who a bearer is, `serviceaccounts/NAME/token`, and TokenReview.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{answer::Refusal, call::Call};

/// Who has a token, and for whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// `system:serviceaccount:NAMESPACE:NAME`, for accounts.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Audiences that it is good for.
    pub audiences: Vec<String>,
    /// The pod that it is bound to: name and uid.
    pub pod: Option<(String, String)>,
    /// The node of that pod.
    pub node: Option<String>,
}

impl Bearer {
    /// A service account.
    pub fn account(namespace: &str, name: &str, audiences: &[&str]) -> Self {
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
            pod: None,
            node: None,
        }
    }
}

/// The tokens that are good.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    bearers: BTreeMap<String, Bearer>,
    issued: u64,
}

impl Tokens {
    pub(super) fn issue(&mut self, bearer: Bearer) -> String {
        self.issued += 1;
        let token = format!("token-{}-{}", self.issued, bearer.user.replace(':', "."));
        self.bearers.insert(token.clone(), bearer);
        token
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.bearers.remove(token);
    }

    pub(super) fn bearer(&self, token: &str) -> Option<&Bearer> {
        self.bearers.get(token)
    }

    /// Answers TokenRequest and TokenReview; `None` for all other calls.
    pub(super) fn answer(&mut self, call: &Call) -> Option<Result<(u16, Value), Refusal>> {
        match (call.verb.as_str(), call.plural.as_str(), call.subresource.as_str()) {
            ("create", "serviceaccounts", "token") => Some(self.request(call)),
            ("create", "tokenreviews", "") => Some(self.review(call)),
            _ => None,
        }
    }

    fn request(&mut self, call: &Call) -> Result<(u16, Value), Refusal> {
        let mut request = call.object()?;
        let audiences: Vec<&str> = strings(&request["spec"]["audiences"]);
        let mut bearer = Bearer::account(&call.namespace, &call.name, &audiences);
        let bound = &request["spec"]["boundObjectRef"];
        if let (Some(name), Some(uid)) = (bound["name"].as_str(), bound["uid"].as_str()) {
            bearer.pod = Some((name.to_owned(), uid.to_owned()));
        }
        let token = self.issue(bearer);
        request["status"] = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
        Ok((201, request))
    }

    fn review(&self, call: &Call) -> Result<(u16, Value), Refusal> {
        let mut review = call.object()?;
        let wanted: Vec<&str> = strings(&review["spec"]["audiences"]);
        let token = review["spec"]["token"].as_str().unwrap_or_default();
        let fits = |bearer: &&Bearer| {
            wanted.is_empty()
                || wanted.iter().any(|it| bearer.audiences.iter().any(|own| own == it))
        };
        review["status"] = match self.bearer(token).filter(fits) {
            None => json!({"authenticated": false, "error": "invalid bearer token"}),
            Some(bearer) => {
                let mut extra = json!({});
                if let Some((name, uid)) = &bearer.pod {
                    extra["authentication.kubernetes.io/pod-name"] = json!([name]);
                    extra["authentication.kubernetes.io/pod-uid"] = json!([uid]);
                }
                if let Some(node) = &bearer.node {
                    extra["authentication.kubernetes.io/node-name"] = json!([node]);
                }
                let audiences: Vec<&String> = bearer
                    .audiences
                    .iter()
                    .filter(|own| wanted.is_empty() || wanted.contains(&own.as_str()))
                    .collect();
                json!({
                    "authenticated": true,
                    "user": {"username": bearer.user, "groups": bearer.groups, "extra": extra},
                    "audiences": audiences,
                })
            }
        };
        Ok((201, review))
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
