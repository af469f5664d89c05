//! Tokens of requests: one is believed if it was signed here, byte by byte, and says what the rule
//! wants; and nothing of it is passed on that should not be.

mod token;

use std::{sync::OnceLock, time::Duration};

use http::Request;
use undermesh_model::{JwtKeys, JwtRule, ResourceRef, TokenLocation};
use undermesh_proxy::fuzzing::guard::{Authenticated, Keys, authenticate};

use self::token::{Made, Meant};
use crate::source::Source;

/// Words that tokens are changed to.
pub(super) const DICTIONARY: &[&[u8]] =
    &[b".", b"..", b"=", b"eyJ", b"none", b"-", b"_", b"+", b"/", b"Bearer ", b"\0", b"%2e"];

/// One secret, and one public key that must not be taken for a secret.
fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys::read(token::KEYS.as_bytes()).expect("keys"))
}

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let rule = rule(&mut source);
    let made = Made::read(&mut source);
    let Some(request) = request(&rule, &made.text, source.below(4)) else { return };
    let outcome = authenticate(keys(), &rule, request.into_parts().0, ([10, 0, 0, 1], 80).into());
    let believed = outcome.as_ref().is_ok_and(|outcome| outcome.claims.is_some());
    if believed {
        assert!(
            rule.locations.iter().any(|place| made.is_signed_here(place)),
            "believed: {:?}",
            made.text
        );
    }
    match made.meant(&rule) {
        Meant::Yes if made.is_untouched() => assert!(believed, "{:?} was refused", made.text),
        Meant::No => assert!(!believed, "{:?} was believed", made.text),
        _ => {}
    }
    if let Ok(outcome) = outcome {
        passed_on(&rule, &made, &outcome);
    }
}

fn rule(source: &mut Source<'_>) -> JwtRule {
    let places = [
        TokenLocation::Header("authorization".to_owned(), "Bearer ".to_owned()),
        TokenLocation::Header("x-token".to_owned(), String::new()),
        TokenLocation::Parameter("access_token".to_owned()),
        TokenLocation::Cookie("session".to_owned()),
    ];
    let shape = source.byte();
    let audiences = if shape & 1 > 0 { vec!["shop".to_owned()] } else { Vec::new() };
    JwtRule {
        origin: ResourceRef::namespaced("RequestAuthentication", "a", "a"),
        issuer: source.pick(&["issuer", "", "other"]).to_owned(),
        audiences,
        keys: JwtKeys::Inline(String::new()),
        locations: vec![places[source.below(places.len())].clone()],
        forward: shape & 2 > 0,
        payload_header: (shape & 4 > 0).then(|| "x-payload".to_owned()),
        claim_headers: vec![("x-sub".to_owned(), "sub".to_owned())],
        words: vec!["scope".to_owned()],
        timeout: Duration::from_secs(1),
    }
}

/// A request with a token where the rule looks for one, and lies about what it says.
fn request(rule: &JwtRule, token: &str, noise: usize) -> Option<Request<()>> {
    let builder = Request::builder().method("GET").header("host", "a");
    let builder = builder.header("x-sub", "liar").header("x-payload", "lie");
    let builder = match noise {
        0 => builder,
        1 => builder.header("x-payload", "again"),
        2 => builder.header("cookie", "a=b; c"),
        _ => builder.header("authorization", "Basic YTpi"),
    };
    let request = match rule.locations.first()? {
        TokenLocation::Header(name, prefix) => {
            builder.uri("/p").header(name, format!("{prefix}{token}"))
        }
        TokenLocation::Parameter(name) => builder.uri(format!("/p?a=b&{name}={token}&c")),
        TokenLocation::Cookie(name) => {
            builder.uri("/p").header("cookie", format!("x=y; {name}={token}"))
        }
    };
    request.body(()).ok()
}

fn passed_on(rule: &JwtRule, made: &Made, outcome: &Authenticated) {
    let values = |name: &str| {
        let values = outcome.parts.headers.get_all(name).iter();
        values.map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>()
    };
    let Some(claims) = &outcome.claims else {
        if rule.payload_header.is_some() {
            assert!(values("x-payload").is_empty(), "a payload that nobody has verified");
        }
        assert!(values("x-sub").is_empty(), "a claim that nobody has verified");
        return;
    };
    assert_eq!(claims.get("sub"), made.claims.get("sub"));
    let subject = claims.get("sub").and_then(|value| match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(value.to_string()),
        _ => None,
    });
    let expected: Vec<Vec<u8>> = subject.into_iter().map(String::into_bytes).collect();
    assert_eq!(values("x-sub"), expected, "the claim");
    if rule.payload_header.is_some() {
        assert_eq!(values("x-payload"), [made.payload().as_bytes()], "the payload");
    }
    if let (false, Some(TokenLocation::Header(name, _))) = (rule.forward, rule.locations.first()) {
        let token = made.text.trim();
        let is_there = |value: &Vec<u8>| String::from_utf8_lossy(value).contains(token);
        assert!(!values(name).iter().any(is_there), "the token");
    }
    if let (false, Some(TokenLocation::Parameter(_))) = (rule.forward, rule.locations.first()) {
        let query = outcome.parts.uri.query().unwrap_or_default();
        assert!(query.starts_with("a=b") && !query.contains("access_token="), "the token");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for place in 0..4 {
        for shape in [0, 1, 2, 4, 7] {
            for change in [0, 1, 2, 3, 4, 5, 6, 7] {
                seeds.push(vec![shape, 0, place, 0, 0, 0, 0, 0, 0, change, 9, 30, 40]);
            }
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_signed_here_is_believed() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut source = Source::new(&bytes);
        let rule = rule(&mut source);
        let made = Made::read(&mut source);
        assert!(made.is_untouched());
        let request = request(&rule, &made.text, 0).expect("a request");
        let outcome =
            authenticate(keys(), &rule, request.into_parts().0, ([10, 0, 0, 1], 80).into());
        assert!(outcome.is_ok_and(|outcome| outcome.claims.is_some()));
    }
}
