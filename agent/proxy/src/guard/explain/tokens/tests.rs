//! What is said of tokens without their keys, and with them.

use ::http::Request;
use jsonwebtoken::{Algorithm, EncodingKey, encode, get_current_timestamp, jwk::Jwk};
use serde_json::{Value, json};
use undermesh_model::TokenLocation;

use super::*;

const SECRET: &[u8] = b"known to the issuer";

fn key_set() -> String {
    let jwk = Jwk::from_encoding_key(&EncodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
    json!({ "keys": [jwk] }).to_string()
}

fn token(secret: &[u8], claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret);
    encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn rule(keys: JwtKeys) -> JwtRule {
    JwtRule {
        origin: ResourceRef::namespaced("RequestAuthentication", "shop", "tokens"),
        issuer: "me".to_owned(),
        audiences: vec!["shop".to_owned()],
        keys,
        locations: vec![TokenLocation::Parameter("token".to_owned())],
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        words: Vec::new(),
        timeout: Duration::from_secs(1),
    }
}

/// What becomes of a token where its rule has keys, and where they are elsewhere.
fn both(token: &str) -> [(Option<&'static str>, bool); 2] {
    let elsewhere = JwtKeys::Uri("https://me/keys".to_owned());
    [JwtKeys::Inline(key_set()), elsewhere].map(|keys| {
        let (claims, keys) = verify(&Present::default(), &rule(keys), token);
        let wrong = claims.err().map(Invalid::text);
        (wrong, matches!(keys, KeysAtHand::Missing(_)))
    })
}

#[test]
fn without_keys_everything_but_the_signature_is_looked_at() {
    let now = get_current_timestamp();
    let good = json!({"iss": "me", "aud": ["shop"], "sub": "you", "exp": now + 600});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        token(SECRET, &claims)
    };
    for (token, wrong) in [
        (token(SECRET, &good), None),
        (but("exp", json!(now - 600)), Some(Invalid::Expired)),
        // Clocks may differ.
        (but("exp", json!(now - 30)), None),
        (but("exp", json!("tomorrow")), Some(Invalid::Malformed)),
        (but("nbf", json!(now + 600)), Some(Invalid::TooEarly)),
        (but("iss", json!("you")), Some(Invalid::Issuer)),
        (but("aud", json!("other")), Some(Invalid::Audience)),
    ] {
        let wrong = wrong.map(Invalid::text);
        assert_eq!(both(&token), [(wrong, false), (wrong, true)], "{token}");
    }
    let forged = token(b"known to somebody else", &good);
    assert_eq!(both(&forged), [(Some(Invalid::Signature.text()), false), (None, true)]);
    let none = (Some(Invalid::Malformed.text()), false);
    assert_eq!(both("nonsense"), [none, none]);
}

#[test]
fn a_rule_whose_own_keys_cannot_be_used_takes_no_token() {
    let token = token(SECRET, &json!({"iss": "me", "aud": "shop"}));
    let of =
        |keys: &str| verify(&Present::default(), &rule(JwtKeys::Inline(keys.to_owned())), &token);
    let (claims, keys) = of("{\"keys\": []}");
    assert_eq!((claims, keys), (Err(Invalid::NoKeys), KeysAtHand::OfRule));
    assert!(of(&key_set()).0.is_ok());
}

#[test]
fn one_rule_without_keys_leaves_no_doubt_about_another() {
    let mut other = rule(JwtKeys::Uri("https://other/keys".to_owned()));
    other.issuer = "other".to_owned();
    let tokens = vec![Arc::new(other), Arc::new(rule(JwtKeys::Inline(key_set())))];
    let policy = CompiledPolicy { tokens, ..CompiledPolicy::default() };
    let token = token(SECRET, &json!({"iss": "me", "aud": "shop"}));
    let request = Request::get(format!("http://a/?token={token}")).header("host", "a");
    let parts = request.body(()).unwrap().into_parts().0;
    let mut head = Head::new(parts, ([10, 0, 0, 1], 80).into()).unwrap();
    let mut said = Vec::new();
    let claims = verified(&policy, &Present::default(), &mut head, &mut said).unwrap();
    assert_eq!(claims.unwrap()["iss"], "me");
    let wrong: Vec<_> = said.iter().map(|token| token.wrong).collect();
    assert_eq!(wrong, [Some(Invalid::Issuer.text()), None]);
    assert_eq!(said[1].keys, KeysAtHand::OfRule);
}
