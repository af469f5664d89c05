//! Whose a bearer token is (`authentication.k8s.io/v1` TokenReview).

use serde_json::{Value, json};

use super::{ApiError, ApiServer};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Who a good token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub account: String,
    /// Name and UID of the pod that the token is bound to.
    pub pod: Option<(String, String)>,
    /// That pod's node, where the server says it (since Kubernetes 1.30).
    pub node: Option<String>,
}

impl ApiServer {
    /// Asks whose a token is that is meant for one of `audiences`; the inner error says why it is not good.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn review_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<TokenOwner, String>, ApiError> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        let answer: Value = self.create(PATH, &review).await?;
        Ok(owner(&answer["status"], audiences))
    }
}

fn owner(status: &Value, audiences: &[String]) -> Result<TokenOwner, String> {
    if status["authenticated"] != true {
        let why = status["error"].as_str().unwrap_or("the API server does not know it");
        return Err(why.chars().filter(|c| !c.is_control()).take(200).collect());
    }
    // A server that knows nothing of audiences leaves them out, and has not looked at them.
    let good = status["audiences"].as_array().is_some_and(|found| {
        found.iter().filter_map(Value::as_str).any(|it| audiences.iter().any(|own| own == it))
    });
    if !good {
        return Err(format!("it is for none of the audiences {}", audiences.join(", ")));
    }
    let user = status["user"]["username"].as_str().unwrap_or_default();
    let account = user.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
    let Some((namespace, account)) = account else {
        return Err("it is no service account's".to_owned());
    };
    let extra = |name: &str| {
        let values = status["user"]["extra"][name].as_array()?;
        values.first()?.as_str().map(str::to_owned)
    };
    Ok(TokenOwner {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        pod: extra(POD_NAME).zip(extra(POD_UID)),
        node: extra(NODE_NAME),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["undermesh-ca"],
            "user": {
                "username": "system:serviceaccount:mesh:agent",
                "extra": {POD_NAME: ["agent-x"], POD_UID: ["1"], NODE_NAME: ["a"]},
            },
        })
    }

    #[test]
    fn an_account_its_pod_and_its_node_are_read() {
        let audiences = ["undermesh-ca".to_owned(), "istio-ca".to_owned()];
        let owner = owner(&status(), &audiences).unwrap();
        assert_eq!((owner.namespace.as_str(), owner.account.as_str()), ("mesh", "agent"));
        assert_eq!(owner.pod, Some(("agent-x".to_owned(), "1".to_owned())));
        assert_eq!(owner.node.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_not_good_says_why() {
        let audiences = ["undermesh-ca".to_owned()];
        let with = |pointer: &str, value: Value| {
            let mut status = status();
            *status.pointer_mut(pointer).unwrap() = value;
            owner(&status, &audiences).unwrap_err()
        };
        assert!(with("/authenticated", json!(false)).contains("does not know it"));
        assert!(with("/authenticated", json!("true")).contains("does not know it"));
        assert!(with("/audiences", json!(["https://kubernetes"])).contains("undermesh-ca"));
        assert!(with("/audiences", json!(null)).contains("undermesh-ca"));
        assert!(with("/user/username", json!("alice")).contains("no service account's"));
    }
}
