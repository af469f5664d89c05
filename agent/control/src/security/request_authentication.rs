//! RequestAuthentication.
//!
//! Source: Istio, `pkg/config/validation/validation.go`, `validateJwtRule`, for what is refused.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::{self as model, JwtKeys, NamespacedName, TokenLocation};

use super::{Selector, invalid, labels};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
    traffic::duration,
};

/// Istio's default for a JWKS that has to be fetched.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Claims that are lists of words, where nothing is said.
const WORDS: [&str; 2] = ["scope", "permission"];

const KNOWN: [fields::Known; 6] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["selector", "targetRef", "targetRefs", "jwtRules"]),
    ("spec.selector", &["matchLabels"]),
    (
        "spec.jwtRules.[]",
        &[
            "issuer",
            "audiences",
            "jwksUri",
            "jwks",
            "fromHeaders",
            "fromParams",
            "fromCookies",
            "outputPayloadToHeader",
            "forwardOriginalToken",
            "outputClaimToHeaders",
            "spaceDelimitedClaims",
            "timeout",
        ],
    ),
    ("spec.jwtRules.[].fromHeaders.[]", &["name", "prefix"]),
    ("spec.jwtRules.[].outputClaimToHeaders.[]", &["header", "claim"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RequestAuthentication {
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<Selector>,
    target_ref: Option<IgnoredAny>,
    target_refs: Vec<IgnoredAny>,
    jwt_rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    issuer: String,
    audiences: Vec<String>,
    jwks_uri: String,
    jwks: String,
    from_headers: Vec<Header>,
    from_params: Vec<String>,
    from_cookies: Vec<String>,
    output_payload_to_header: String,
    forward_original_token: bool,
    output_claim_to_headers: Vec<ClaimHeader>,
    space_delimited_claims: Vec<String>,
    timeout: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    name: String,
    prefix: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimHeader {
    header: String,
    claim: String,
}

/// Reads a RequestAuthentication; `None` where it is not about workloads.
pub(crate) fn request_authentication(
    object: &RequestAuthentication,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<model::RequestAuthentication>> {
    fields::check(&KNOWN, subject, report);
    let spec = &object.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        let message = "it is about a gateway or waypoint, of which this mesh has none".to_owned();
        let remedy = "it has no effect; write a selector for the labels of the pods instead";
        report.warning(subject, &["spec"], "not-enforced", message, remedy);
        return None;
    }
    let rules = spec.jwt_rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| Reader::new(index, subject, report).rule(rule)).collect();
    let read = model::RequestAuthentication {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        selector: labels(spec.selector.as_ref()),
        rules,
    };
    Some(Placed::new(read, subject))
}

/// Reads one rule.
struct Reader<'a> {
    index: String,
    subject: &'a Subject<'a>,
    report: &'a mut Report,
}

impl<'a> Reader<'a> {
    fn new(index: usize, subject: &'a Subject<'a>, report: &'a mut Report) -> Self {
        Self { index: index.to_string(), subject, report }
    }

    fn rule(mut self, rule: &Rule) -> model::JwtRule {
        if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
            self.invalid("issuer", "has neither issuer nor jwksUri", "write one of them");
        }
        if rule.audiences.iter().any(String::is_empty) {
            self.invalid("audiences", "has an empty audience", "leave it out");
        }
        let payload_header = &rule.output_payload_to_header;
        let payload_header = (!payload_header.is_empty())
            .then(|| self.header("outputPayloadToHeader", payload_header));
        let mut claim_headers = Vec::new();
        for ClaimHeader { header, claim } in &rule.output_claim_to_headers {
            if claim.is_empty() {
                self.invalid("outputClaimToHeaders", "names no claim", "write the claim's name");
            }
            claim_headers.push((self.header("outputClaimToHeaders", header), claim.clone()));
        }
        let words = if rule.space_delimited_claims.is_empty() {
            WORDS.map(str::to_owned).to_vec()
        } else {
            rule.space_delimited_claims.clone()
        };
        model::JwtRule {
            origin: self.subject.origin.clone(),
            issuer: rule.issuer.clone(),
            audiences: rule.audiences.clone(),
            keys: self.keys(rule),
            locations: self.locations(rule),
            forward: rule.forward_original_token,
            payload_header,
            claim_headers,
            words,
            timeout: self.timeout(rule.timeout.as_deref()),
        }
    }

    /// `jwks` counts where there is a `jwksUri` as well.
    fn keys(&mut self, rule: &Rule) -> JwtKeys {
        if !rule.jwks.is_empty() {
            let set: Option<serde_json::Value> = serde_json::from_str(&rule.jwks).ok();
            if set.is_none_or(|set| !set["keys"].is_array()) {
                self.invalid(
                    "jwks",
                    "has keys that are no JSON Web Key Set",
                    "write {\"keys\": [...]}",
                );
            }
            return JwtKeys::Inline(rule.jwks.clone());
        }
        if rule.jwks_uri.is_empty() {
            return JwtKeys::Discovered;
        }
        let uri = rule.jwks_uri.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        if !matches!(scheme, Some("http" | "https")) {
            self.invalid("jwksUri", "has a URI that is none of http or https", "correct it");
        }
        JwtKeys::Uri(rule.jwks_uri.clone())
    }

    /// Istio's default, where nothing is said: the header and the parameter of RFC 6750.
    fn locations(&mut self, rule: &Rule) -> Vec<TokenLocation> {
        let mut locations = Vec::new();
        for Header { name, prefix } in &rule.from_headers {
            locations.push(TokenLocation::Header(self.header("fromHeaders", name), prefix.clone()));
        }
        for (field, names) in
            [("fromParams", &rule.from_params), ("fromCookies", &rule.from_cookies)]
        {
            if names.iter().any(String::is_empty) {
                self.invalid(field, "has an empty name", "leave it out");
            }
        }
        locations.extend(rule.from_params.iter().cloned().map(TokenLocation::Parameter));
        locations.extend(rule.from_cookies.iter().cloned().map(TokenLocation::Cookie));
        if locations.is_empty() {
            let header = TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned());
            locations = vec![header, TokenLocation::Parameter("access_token".to_owned())];
        }
        locations
    }

    fn header(&mut self, field: &str, name: &str) -> String {
        match HeaderName::try_from(name) {
            Ok(name) => name.as_str().to_owned(),
            Err(_) => {
                let what = format!("has {name:?}, which is no name of a header");
                self.invalid(field, &what, "correct it");
                "x-invalid".to_owned()
            }
        }
    }

    fn timeout(&mut self, text: Option<&str>) -> Duration {
        let Some(text) = text else { return FETCH_TIMEOUT };
        let read = duration(text).filter(|timeout| *timeout >= Duration::from_millis(1));
        read.unwrap_or_else(|| {
            let what = format!("has timeout {text:?}, which is no duration of 1 ms or more");
            self.invalid("timeout", &what, "write 5s, for example");
            FETCH_TIMEOUT
        })
    }

    fn invalid(&mut self, field: &str, what: &str, remedy: &str) {
        let path = ["spec", "jwtRules", &self.index, field];
        let message = format!("jwtRules[{}] {what}", self.index);
        invalid(self.report, self.subject, &path, message, remedy);
    }
}
