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
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};
use undermesh_model::{JwtRule, TokenLocation};

use super::{keys::Key, path::decoded};
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
pub(super) enum Invalid {
    Malformed,
    Issuer,
    Audience,
    Expired,
    TooEarly,
    Signature,
    NoKeys,
}

impl Invalid {
    pub(super) const fn text(self) -> &'static str {
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
pub(super) fn remove_outputs(rule: &JwtRule, headers: &mut HeaderMap) {
    let claims = rule.claim_headers.iter().map(|(header, _)| header);
    for name in rule.payload_header.iter().chain(claims) {
        headers.remove(name.as_str());
    }
}

/// The first token at the places where a rule looks.
pub(super) fn find(rule: &JwtRule, head: &Head) -> Option<String> {
    rule.locations.iter().find_map(|location| at(location, head))
}

fn at(location: &TokenLocation, head: &Head) -> Option<String> {
    let headers = &head.parts.headers;
    match location {
        TokenLocation::Header(name, prefix) => {
            let values = headers.get_all(name.as_str()).iter();
            values.filter_map(|value| value.to_str().ok()).find_map(|value| behind(prefix, value))
        }
        TokenLocation::Parameter(name) => {
            let mut pairs = head.parts.uri.query()?.split('&');
            let pair = pairs.find(|pair| is_parameter(pair, name) && pair.contains('='))?;
            pair.split_once('=').map(|(_, value)| decoded(value))
        }
        TokenLocation::Cookie(name) => {
            let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let pairs = cookies.flat_map(|value| value.split(';'));
            let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.to_owned())
        }
    }
}

/// The token in a header's value: whatever stands before its prefix, as Envoy reads it. An application
/// may look for it behind something else.
fn behind(prefix: &str, value: &str) -> Option<String> {
    let token = value[value.find(prefix)? + prefix.len()..].trim();
    let end = token.find([',', ' ']).unwrap_or(token.len());
    Some(token[..end].to_owned())
}

/// Whether a part of a query has this name, encoded or not.
fn is_parameter(pair: &str, name: &str) -> bool {
    decoded(pair.split('=').next().unwrap_or_default()) == name
}

async fn verify(shared: &Shared, rule: &JwtRule, token: &str) -> Result<Claims, Invalid> {
    let header = header(token)?;
    let keys = &shared.keys;
    let mut known = keys.of(shared, rule).await.ok_or(Invalid::NoKeys)?;
    if candidates(&known, &header).next().is_none() {
        // The issuer may have got new ones.
        known = keys.newer(shared, rule).await.ok_or(Invalid::NoKeys)?;
    }
    judged(&known, rule, &header, token)
}

/// How a token says that it is signed.
pub(super) fn header(token: &str) -> Result<Header, Invalid> {
    if token.len() > MAX_TOKEN {
        return Err(Invalid::Malformed);
    }
    decode_header(token).map_err(|_| Invalid::Malformed)
}

/// What a token says, if one of these keys has signed it for whom the rule is about.
pub(super) fn judged(
    known: &[Key],
    rule: &JwtRule,
    header: &Header,
    token: &str,
) -> Result<Claims, Invalid> {
    let mut outcome = Err(Invalid::Signature);
    for key in candidates(known, header) {
        outcome = read(key, header.alg, token);
        if outcome != Err(Invalid::Signature) {
            break;
        }
    }
    let claims = normalised(outcome?, &rule.words);
    is_meant(rule, &claims).map(|()| claims)
}

/// The keys that may have signed a token: that which it names, else all of its algorithm.
fn candidates<'a>(keys: &'a [Key], header: &'a Header) -> impl Iterator<Item = &'a Key> {
    let id = header.kid.as_deref();
    keys.iter().filter(move |key| {
        let named = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        named && key.algorithm.is_none_or(|own| own == header.alg)
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

pub(super) fn pass_on(
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
            let values = head.parts.headers.get_all(name.as_str()).iter();
            let mut values = values.filter_map(|value| value.to_str().ok());
            if values.any(|value| value.contains(prefix.as_str())) {
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
    let is_other = |pair: &&str| !is_parameter(pair, name);
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

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    /// What is found in a request with this query and these values of `authorization`, and what of them
    /// is left when the token is taken away.
    fn found(location: &TokenLocation, query: &str, values: &[&str]) -> (Option<String>, String) {
        let mut builder = Request::get(format!("http://a/p?{query}"));
        for value in values {
            builder = builder.header("authorization", *value);
        }
        let request = builder.header("host", "a").body(()).unwrap();
        let mut head = Head::new(request.into_parts().0, ([10, 0, 0, 1], 80).into()).unwrap();
        let token = at(location, &head);
        take_away(location, &mut head).unwrap();
        let left = head.parts.headers.get_all("authorization").iter();
        let left: Vec<&str> = left.map(|value| value.to_str().unwrap()).collect();
        (token, format!("{}{}", head.parts.uri.query().unwrap_or_default(), left.join("|")))
    }

    #[test]
    fn a_token_does_not_hide_behind_other_values_of_its_header() {
        let location = TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned());
        for values in [
            &["Bearer a.b.c"][..],
            &["Basic x", "Bearer a.b.c"],
            &["Basic x, Bearer a.b.c"],
            &["Bearer  a.b.c , Basic x"],
        ] {
            let expected = (Some("a.b.c".to_owned()), "q".to_owned());
            assert_eq!(found(&location, "q", values), expected, "{values:?}");
        }
        assert_eq!(found(&location, "q", &["Basic x"]), (None, "qBasic x".to_owned()));
    }

    #[test]
    fn a_token_does_not_hide_behind_an_encoded_name() {
        let location = TokenLocation::Parameter("access_token".to_owned());
        for query in ["q&access_token=a.b.c", "access%5ftoken=a%2Eb.c&q"] {
            let expected = (Some("a.b.c".to_owned()), "q".to_owned());
            assert_eq!(found(&location, query, &[]), expected, "{query}");
        }
        assert_eq!(found(&location, "q&x=access_token", &[]).0, None);
    }
}
