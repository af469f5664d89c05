//! Somebody who signs tokens (JSON Web Tokens).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// An issuer's key, with a name.
pub struct Issuer {
    name: &'static str,
    key: EncodingKey,
}

impl Issuer {
    /// A new key.
    ///
    /// # Errors
    /// None can be made.
    pub fn new(name: &'static str) -> Result<Self> {
        let pair = KeyPair::generate()?;
        Ok(Self { name, key: EncodingKey::from_ec_der(&pair.serialize_der()) })
    }

    /// Its key set, as issuers publish it.
    ///
    /// # Errors
    /// The key cannot be written.
    pub fn set(&self) -> Result<String> {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256)?;
        jwk.common.key_id = Some(self.name.to_owned());
        Ok(json!({ "keys": [jwk] }).to_string())
    }

    /// A token that says this.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, claims: &Value) -> Result<String> {
        let header = Header { kid: Some(self.name.to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, claims, &self.key)?)
    }

    /// So many seconds from now, as tokens have times.
    pub fn within(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs() as i64 + seconds
    }
}
