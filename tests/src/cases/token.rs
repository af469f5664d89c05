//! Tokens of requests (JSON Web Tokens), signed as issuers do.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Claims that are times: written as seconds from now.
const TIMES: [&str; 3] = ["exp", "nbf", "iat"];

/// A token that a request carries.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it says. `exp`, `nbf` and `iat` are seconds from now; without `exp`, it is good for an hour.
    pub claims: Map<String, Value>,
    /// Signed by a key that nobody knows.
    #[serde(default)]
    pub forged: bool,
}

/// Two issuers' keys, of which one is known.
pub(super) struct Issuer {
    known: EncodingKey,
    stranger: EncodingKey,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").finish_non_exhaustive()
    }
}

impl Issuer {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { known: key()?, stranger: key()? })
    }

    /// The key that is known, as a set.
    pub(super) fn keys(&self) -> Result<String> {
        let jwk = Jwk::from_encoding_key(&self.known, Algorithm::ES256)?;
        Ok(json!({ "keys": [jwk] }).to_string())
    }

    /// Signs.
    pub(super) fn sign(&self, token: &Token) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        let mut claims = token.claims.clone();
        claims.entry("exp").or_insert(json!(3600));
        for name in TIMES {
            if let Some(seconds) = claims.get(name).and_then(Value::as_i64) {
                claims.insert(name.to_owned(), json!(now + seconds));
            }
        }
        let key = if token.forged { &self.stranger } else { &self.known };
        Ok(encode(&Header::new(Algorithm::ES256), &claims, key)?)
    }
}

fn key() -> Result<EncodingKey> {
    Ok(EncodingKey::from_ec_der(&KeyPair::generate()?.serialize_der()))
}
