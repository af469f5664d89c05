//! Step *authenticate*: a request's token, where the policy of its destination knows its issuer.
//!
//! A request without a token passes, and has no claims; one whose token is not valid does not pass, whatever
//! the rules say. Statuses and texts are those of Envoy's JWT filter, which clients know.
//!
//! Source: Istio, `pilot/pkg/security/authn/policy_applier.go`; Envoy, `source/common/jwt/status.cc`.

use std::sync::Arc;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{ACCESS_CONTROL_REQUEST_METHOD, COOKIE, ORIGIN},
    uri::PathAndQuery,
};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};
use undermesh_model::{JwtRule, TokenLocation};

use super::keys::Key;
use crate::{
    http::{Head, LocalReply},
    proxy::Shared,
};

/// Seconds that the clocks of an issuer and of this node may differ by (Envoy's default).
const LEEWAY: u64 = 60;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// What a token says.
pub(super) type Claims = Map<String, Value>;

/// Why a token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalid {
    Malformed,
    Issuer,
    Audience,
    Expired,
    TooEarly,
    Signature,
    NoKeys,
}

impl Invalid {
    const fn text(self) -> &'static str {
        match self {
            Self::Malformed => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::Issuer => "Jwt issuer is not configured",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Expired => "Jwt is expired",
            Self::TooEarly => "Jwt not yet valid",
            Self::Signature => "Jwt verification fails",
            Self::NoKeys => "Jwks remote fetch is failed",
        }
    }

    /// Stable code for logs.
    const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "jwt_malformed",
            Self::Issuer => "jwt_unknown_issuer",
            Self::Audience => "jwt_wrong_audience",
            Self::Expired => "jwt_expired",
            Self::TooEarly => "jwt_not_yet_valid",
            Self::Signature => "jwt_bad_signature",
            Self::NoKeys => "jwt_no_keys",
        }
    }

    fn reply(self, issuer: &str) -> LocalReply {
        let status = match self {
            Self::Audience => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let detail = format!("the token for {issuer:?} is not valid: {}", self.text());
        LocalReply::unauthenticated(status, self.reason(), self.text(), detail)
    }
}

/// Verifies what tokens a request carries; gives it the headers that the rules want, and nobody else's.
pub(super) async fn authenticate(
    shared: &Shared,
    rules: &[Arc<JwtRule>],
    head: &mut Head,
) -> Result<Option<Claims>, LocalReply> {
    for rule in rules {
        remove_outputs(rule, &mut head.parts.headers);
    }
    if is_preflight(head) {
        return Ok(None);
    }
    let mut refusal = None;
    for rule in rules {
        let Some(token) = find(rule, head) else { continue };
        match verify(shared, rule, &token).await {
            Ok(claims) => {
                pass_on(rule, &token, &claims, head)?;
                return Ok(Some(claims));
            }
            Err(invalid) => refusal = Some(invalid.reply(&rule.issuer)),
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// Browsers ask without a token whether they may ask with one.
fn is_preflight(head: &Head) -> bool {
    let has = |name: HeaderName| head.parts.headers.contains_key(name);
    head.parts.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What only this proxy may say.
fn remove_outputs(rule: &JwtRule, headers: &mut HeaderMap) {
    let claims = rule.claim_headers.iter().map(|(header, _)| header);
    for name in rule.payload_header.iter().chain(claims) {
        headers.remove(name.as_str());
    }
}

/// The first token at the places where a rule looks.
fn find(rule: &JwtRule, head: &Head) -> Option<String> {
    rule.locations.iter().find_map(|location| at(location, head))
}

fn at(location: &TokenLocation, head: &Head) -> Option<String> {
    let headers = &head.parts.headers;
    match location {
        TokenLocation::Header(name, prefix) => {
            let value = headers.get(name.as_str())?.to_str().ok()?;
            Some(value.strip_prefix(prefix.as_str())?.trim().to_owned())
        }
        TokenLocation::Parameter(name) => {
            let pairs = head.parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.to_owned())
        }
        TokenLocation::Cookie(name) => {
            let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let pairs = cookies.flat_map(|value| value.split(';'));
            let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.to_owned())
        }
    }
}

async fn verify(shared: &Shared, rule: &JwtRule, token: &str) -> Result<Claims, Invalid> {
    if token.len() > MAX_TOKEN {
        return Err(Invalid::Malformed);
    }
    let header = decode_header(token).map_err(|_| Invalid::Malformed)?;
    let keys = &shared.keys;
    let mut known = keys.of(shared, rule).await.ok_or(Invalid::NoKeys)?;
    if candidates(&known, header.kid.as_deref(), header.alg).next().is_none() {
        // The issuer may have got new ones.
        known = keys.newer(shared, rule).await.ok_or(Invalid::NoKeys)?;
    }
    let mut outcome = Err(Invalid::Signature);
    for key in candidates(&known, header.kid.as_deref(), header.alg) {
        outcome = read(key, header.alg, token);
        if outcome != Err(Invalid::Signature) {
            break;
        }
    }
    let claims = normalised(outcome?, &rule.words);
    is_meant(rule, &claims).map(|()| claims)
}

/// The keys that may have signed a token: that which it names, else all of its algorithm.
fn candidates<'a>(
    keys: &'a [Key],
    id: Option<&'a str>,
    algorithm: Algorithm,
) -> impl Iterator<Item = &'a Key> {
    keys.iter().filter(move |key| {
        let named = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        named && key.algorithm.is_none_or(|own| own == algorithm)
    })
}

fn read(key: &Key, algorithm: Algorithm, token: &str) -> Result<Claims, Invalid> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    // Compared below, where it can be said which of the two it is.
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    match decode::<Claims>(token, &key.key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::ExpiredSignature => Invalid::Expired,
            ErrorKind::ImmatureSignature => Invalid::TooEarly,
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => Invalid::Signature,
            _ => Invalid::Malformed,
        }),
    }
}

/// Whether the token is from the issuer and for the audience that the rule names.
fn is_meant(rule: &JwtRule, claims: &Claims) -> Result<(), Invalid> {
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if !rule.issuer.is_empty() && issuer != rule.issuer {
        return Err(Invalid::Issuer);
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_allowed = |allowed: &String| audiences.iter().any(|audience| audience == allowed);
    if rule.audiences.is_empty() || rule.audiences.iter().any(is_allowed) {
        Ok(())
    } else {
        Err(Invalid::Audience)
    }
}

/// Makes lists of claims that are words in one text.
fn normalised(mut claims: Claims, words: &[String]) -> Claims {
    for name in words {
        if let Some(claim) = claims.get_mut(name)
            && let Some(text) = claim.as_str()
        {
            let list = text.split(' ').filter(|word| !word.is_empty());
            *claim = list.map(|word| Value::String(word.to_owned())).collect();
        }
    }
    claims
}

fn pass_on(
    rule: &JwtRule,
    token: &str,
    claims: &Claims,
    head: &mut Head,
) -> Result<(), LocalReply> {
    if !rule.forward {
        for location in &rule.locations {
            take_away(location, head)?;
        }
    }
    let headers = &mut head.parts.headers;
    let mut insert = |name: &str, value: &str| {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    };
    if let Some(name) = &rule.payload_header {
        insert(name, token.split('.').nth(1).unwrap_or_default());
    }
    for (name, claim) in &rule.claim_headers {
        match claims.get(claim) {
            Some(Value::String(text)) => insert(name, text),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => insert(name, &value.to_string()),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the token, as it is for this proxy. A cookie stays: others may share its header.
fn take_away(location: &TokenLocation, head: &mut Head) -> Result<(), LocalReply> {
    match location {
        TokenLocation::Header(name, prefix) => {
            let value = head.parts.headers.get(name.as_str());
            if value.is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes())) {
                head.parts.headers.remove(name.as_str());
            }
            Ok(())
        }
        TokenLocation::Parameter(name) => without_parameter(head, name),
        TokenLocation::Cookie(_) => Ok(()),
    }
}

fn without_parameter(head: &mut Head, name: &str) -> Result<(), LocalReply> {
    let Some(query) = head.parts.uri.query() else { return Ok(()) };
    let is_other = |pair: &&str| pair.split('=').next() != Some(name);
    let rest: Vec<&str> = query.split('&').filter(is_other).collect();
    let path = head.parts.uri.path();
    let target =
        if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    let mut parts = head.parts.uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    let uri = Uri::from_parts(parts);
    head.parts.uri = uri.map_err(|_| LocalReply::bad_request("the query cannot be passed on"))?;
    Ok(())
}
