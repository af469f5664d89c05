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
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, dangerous::insecure_decode_claims,
    decode, decode_header, encode, errors::ErrorKind,
};
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
    let found = carried(rules, head)?;
    let mut tally = Tally::default();
    for (rule, token) in &found {
        if tally.needs(token) {
            tally.add(rule, token, verify(shared, rule, token).await);
        }
    }
    tally.settle(head)
}

/// The tokens that a request carries, each with the rule that looks for it.
pub(super) fn carried<'a>(
    rules: &'a [Arc<JwtRule>],
    head: &mut Head,
) -> Result<Vec<(&'a JwtRule, String)>, LocalReply> {
    for rule in rules {
        remove_outputs(rule, &mut head.parts.headers);
    }
    let mut found = Vec::new();
    if is_preflight(head) {
        return Ok(found);
    }
    for rule in rules {
        found.extend(only(rule, head)?.map(|token| (rule.as_ref(), token)));
    }
    Ok(found)
}

/// What became of the tokens of a request. All of them have to be valid: nobody knows which of them the application
/// believes. One that several rules look for has to satisfy one of these.
#[derive(Default)]
pub(super) struct Tally<'a> {
    believed: Vec<(&'a JwtRule, &'a str, Claims)>,
    refused: Vec<(&'a str, LocalReply)>,
}

impl<'a> Tally<'a> {
    /// Whether it still matters what another rule says of a token.
    pub(super) fn needs(&self, token: &str) -> bool {
        self.believed.iter().all(|(_, known, _)| *known != token)
    }

    pub(super) fn add(
        &mut self,
        rule: &'a JwtRule,
        token: &'a str,
        verified: Result<Claims, Invalid>,
    ) {
        match verified {
            Ok(claims) => self.believed.push((rule, token, claims)),
            Err(invalid) => self.refused.push((token, invalid.reply(&rule.issuer))),
        }
    }

    /// Gives the request what the rules want it to have, and says what it claims.
    pub(super) fn settle(mut self, head: &mut Head) -> Result<Option<Claims>, LocalReply> {
        let believed = &self.believed;
        self.refused.retain(|(token, _)| believed.iter().all(|(_, known, _)| known != token));
        if let Some((_, reply)) = self.refused.pop() {
            return Err(reply);
        }
        for (rule, token, claims) in believed {
            pass_on(rule, token, claims, head)?;
        }
        Ok(self.believed.into_iter().next().map(|(_, _, claims)| claims))
    }
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

/// The token at the places where a rule looks. Which of several counts would be for the application to say, and that
/// is not to be trusted with it (RFC 6750, section 2: there must not be more than one).
pub(super) fn only(rule: &JwtRule, head: &Head) -> Result<Option<String>, LocalReply> {
    let mut found = rule.locations.iter().flat_map(|location| at(location, head));
    let Some(token) = found.next() else { return Ok(None) };
    if found.all(|other| other == token) {
        Ok(Some(token))
    } else {
        Err(LocalReply::several_tokens())
    }
}

/// All tokens at a place.
fn at(location: &TokenLocation, head: &Head) -> Vec<String> {
    let headers = &head.parts.headers;
    match location {
        TokenLocation::Header(name, prefix) => {
            let values = headers.get_all(name.as_str()).iter();
            values.flat_map(|value| behind(prefix, value.as_bytes())).collect()
        }
        TokenLocation::Parameter(name) => {
            let pairs = head.parts.uri.query().unwrap_or_default().split('&');
            let pairs = pairs.filter(|pair| is_parameter(pair, name));
            pairs.filter_map(|pair| pair.split_once('=')).map(|(_, value)| decoded(value)).collect()
        }
        TokenLocation::Cookie(name) => {
            let cookies = headers.get_all(COOKIE).iter();
            let cookies = cookies.map(|value| String::from_utf8_lossy(value.as_bytes()));
            let mut found = Vec::new();
            for cookie in cookies {
                let pairs = cookie.split(';').filter_map(|pair| pair.trim().split_once('='));
                found.extend(
                    pairs.filter(|(key, _)| key == name).map(|(_, token)| token.to_owned()),
                );
            }
            found
        }
    }
}

/// The tokens in a header's value: whatever stands before their prefix, as Envoy reads it, and however it is written.
/// An application may look for them behind something else, and takes `bearer` for `Bearer` (RFC 9110, section 11.1).
fn behind(prefix: &str, value: &[u8]) -> Vec<String> {
    let ends = |byte: &u8| matches!(byte, b',' | b' ');
    // What is no text is no token; it is not passed over either.
    let text = |token: &[u8]| String::from_utf8_lossy(token).into_owned();
    if prefix.is_empty() {
        let tokens = value.split(ends).filter(|token| !token.is_empty()).map(text);
        return tokens.collect();
    }
    let mut found = Vec::new();
    let mut rest = value;
    while let Some(at) = position(prefix, rest) {
        rest = rest[at + prefix.len()..].trim_ascii_start();
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        found.push(text(&rest[..end]));
        rest = &rest[end..];
    }
    found
}

/// Where a prefix begins in a value, in whatever letters.
fn position(prefix: &str, value: &[u8]) -> Option<usize> {
    let mut places = value.windows(prefix.len());
    places.position(|place| place.eq_ignore_ascii_case(prefix.as_bytes()))
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
pub(super) fn candidates<'a>(keys: &'a [Key], header: &'a Header) -> impl Iterator<Item = &'a Key> {
    let id = header.kid.as_deref();
    keys.iter().filter(move |key| {
        let named = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        named && key.algorithm.is_none_or(|own| own == header.alg)
    })
}

/// What a token says, if it is for now, and for whom the rule is about. Nobody has looked at its signature: for who
/// asks what would become of it, never for who decides.
pub(super) fn claimed(rule: &JwtRule, token: &str) -> Result<Claims, Invalid> {
    let claims: Claims = insecure_decode_claims(token).map_err(|_| Invalid::Malformed)?;
    // Signed anew, so that its times are read as those of others are.
    let (algorithm, secret) = (Algorithm::HS256, [0; 32]);
    let signed = encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(&secret));
    let signed = signed.map_err(|_| Invalid::Malformed)?;
    let key = DecodingKey::from_secret(&secret);
    let key = Key { id: None, algorithm: Some(algorithm), key };
    let claims = normalised(read(&key, algorithm, &signed)?, &rule.words);
    is_meant(rule, &claims).map(|()| claims)
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
            let mut values = head.parts.headers.get_all(name.as_str()).iter();
            if values.any(|value| !behind(prefix, value.as_bytes()).is_empty()) {
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
mod tests;
