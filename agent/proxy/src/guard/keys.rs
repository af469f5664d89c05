//! The keys that tokens are verified with: given with a rule, or fetched and kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, jwk::JwkSet};
use serde::Serialize;
use undermesh_model::{JwtKeys, JwtRule};

use super::fetch;
use crate::proxy::Shared;

/// How long fetched keys are used before they are fetched again (as Istio has Envoy do it).
const FRESH: Duration = Duration::from_secs(5 * 60);
/// Least time between two fetches, whatever clients send.
const PAUSE: Duration = Duration::from_secs(5);
/// Sources that are kept; more than that would be a configuration out of hand.
const MAX_SOURCES: usize = 1024;

/// One public key.
pub(super) struct Key {
    /// Its name, where it has one.
    pub(super) id: Option<String>,
    /// What it may be used for, where it says so.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) key: DecodingKey,
}

pub(super) type Set = Arc<Vec<Key>>;

/// Keys of all issuers that rules name.
#[derive(Default)]
pub(crate) struct Keys {
    sources: Mutex<HashMap<(JwtKeys, String), Arc<Source>>>,
}

/// Where keys come from, and what was found there last. One request fetches, others wait for it.
#[derive(Default)]
struct Source(tokio::sync::Mutex<Fetched>);

#[derive(Default)]
struct Fetched {
    /// The last that were good; they outlive later failures.
    set: Option<Set>,
    read: Option<Instant>,
    tried: Option<Instant>,
    /// Why the last try failed, if it did.
    error: Option<String>,
}

/// The keys of one source, for the status page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Whose they are.
    pub issuer: String,
    /// Where they are from: a URI, `inline`, or `discovered`.
    pub source: String,
    /// How many there are.
    pub keys: usize,
    /// Seconds since they were read; absent where they never were.
    pub age_seconds: Option<u64>,
    /// Why the last try to read them failed, if it did.
    pub error: Option<String>,
    /// Seconds until a token may have them read again; 0 where it may now.
    pub retry_seconds: u64,
}

impl KeyStatus {
    /// Whether a rule's tokens are verified with these.
    pub fn is_of(&self, rule: &JwtRule) -> bool {
        self.issuer == rule.issuer && self.source == source_name(&rule.keys)
    }
}

fn source_name(keys: &JwtKeys) -> &str {
    match keys {
        JwtKeys::Inline(_) => "inline",
        JwtKeys::Uri(uri) => uri,
        JwtKeys::Discovered => "discovered",
    }
}

impl Keys {
    /// Keys for a rule; `None` where there never were any.
    pub(super) async fn of(&self, shared: &Shared, rule: &JwtRule) -> Option<Set> {
        self.get(shared, rule, FRESH).await
    }

    /// The same, fetched again unless that was done just now.
    pub(super) async fn newer(&self, shared: &Shared, rule: &JwtRule) -> Option<Set> {
        self.get(shared, rule, Duration::ZERO).await
    }

    async fn get(&self, shared: &Shared, rule: &JwtRule, fresh: Duration) -> Option<Set> {
        let source = self.source(rule);
        let mut fetched = source.0.lock().await;
        let is_fresh = match &rule.keys {
            JwtKeys::Inline(_) => fetched.read.is_some(),
            JwtKeys::Uri(_) | JwtKeys::Discovered => {
                let within = |since: Option<Instant>, limit| {
                    since.is_some_and(|since: Instant| since.elapsed() < limit)
                };
                within(fetched.read, fresh) || within(fetched.tried, PAUSE)
            }
        };
        if is_fresh {
            return fetched.set.clone();
        }
        fetched.tried = Some(Instant::now());
        match load(shared, rule).await {
            Ok(set) => {
                fetched.set = Some(Arc::new(set));
                fetched.read = Some(Instant::now());
                fetched.error = None;
                shared.metrics.record_keys("ok");
            }
            Err(error) => {
                shared.metrics.record_keys("failed");
                let kept = fetched.set.is_some();
                tracing::warn!(
                    issuer = rule.issuer,
                    error,
                    kept,
                    "keys for tokens cannot be fetched; requests with tokens are refused unless older keys are kept"
                );
                fetched.error = Some(error);
            }
        }
        fetched.set.clone()
    }

    /// All that were asked for, by issuer.
    pub(crate) fn status(&self) -> Vec<KeyStatus> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<KeyStatus> =
            sources.iter().map(|((keys, issuer), source)| source.status(keys, issuer)).collect();
        all.sort_by(|a, b| (&a.issuer, &a.source).cmp(&(&b.issuer, &b.source)));
        all
    }

    /// Those that were fetched for a rule, and how long ago; or why there are none. Nothing is fetched.
    pub(super) fn at_hand(&self, rule: &JwtRule) -> Result<(Set, Duration), String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.get(&key_of(rule)).ok_or("nobody has needed them yet")?;
        let fetched = source.0.try_lock().map_err(|_| "they are being fetched")?;
        match (&fetched.set, fetched.read) {
            (Some(set), Some(read)) => Ok((Arc::clone(set), read.elapsed())),
            _ => {
                Err(fetched.error.clone().unwrap_or_else(|| "they were not fetched yet".to_owned()))
            }
        }
    }

    fn source(&self, rule: &JwtRule) -> Arc<Source> {
        let key = key_of(rule);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= MAX_SOURCES && !sources.contains_key(&key) {
            sources.clear();
        }
        Arc::clone(sources.entry(key).or_default())
    }
}

/// Whoever names the same keys for the same issuer shares them.
fn key_of(rule: &JwtRule) -> (JwtKeys, String) {
    (rule.keys.clone(), rule.issuer.clone())
}

impl Source {
    fn status(&self, keys: &JwtKeys, issuer: &str) -> KeyStatus {
        let mut status = KeyStatus {
            issuer: issuer.to_owned(),
            source: source_name(keys).to_owned(),
            keys: 0,
            age_seconds: None,
            error: None,
            retry_seconds: 0,
        };
        // Whoever holds it is fetching.
        let Ok(fetched) = self.0.try_lock() else { return status };
        status.keys = fetched.set.as_ref().map_or(0, |set| set.len());
        status.age_seconds = fetched.read.map(|read| read.elapsed().as_secs());
        status.error.clone_from(&fetched.error);
        let left = fetched.tried.map(|tried| PAUSE.saturating_sub(tried.elapsed()));
        status.retry_seconds = left.map_or(0, |left| left.as_secs_f32().ceil() as u64);
        status
    }
}

async fn load(shared: &Shared, rule: &JwtRule) -> Result<Vec<Key>, String> {
    let text = match &rule.keys {
        JwtKeys::Inline(text) => text.clone().into_bytes(),
        JwtKeys::Uri(uri) => fetch::get(shared, uri, rule.timeout).await?,
        JwtKeys::Discovered => {
            let issuer = rule.issuer.trim_end_matches('/');
            let uri = format!("{issuer}/.well-known/openid-configuration");
            let found = fetch::get(shared, &uri, rule.timeout).await?;
            let found: serde_json::Value =
                serde_json::from_slice(&found).map_err(|error| format!("{uri}: {error}"))?;
            fetch::get(shared, discovered(&uri, &found)?, rule.timeout).await?
        }
    };
    read(&text)
}

/// Where a document of OpenID Connect Discovery 1.0 says that the keys are. What was asked for over TLS leads to nothing
/// that anybody on the way can change.
fn discovered<'a>(document: &str, found: &'a serde_json::Value) -> Result<&'a str, String> {
    let none = || format!("{document} names no jwks_uri of http or https");
    let uri = found["jwks_uri"].as_str().ok_or_else(none)?;
    let scheme = uri.parse::<::http::Uri>().ok();
    match scheme.as_ref().and_then(::http::Uri::scheme_str) {
        Some("https") => Ok(uri),
        Some("http") if !document.starts_with("https:") => Ok(uri),
        Some("http") => Err(format!("{document} names a jwks_uri without TLS")),
        _ => Err(none()),
    }
}

/// The keys of a JSON Web Key Set.
pub(super) fn read(text: &[u8]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
    if keys.is_empty() { Err("there is no key that can be used".to_owned()) } else { Ok(keys) }
}

/// A key that can be used; others of a set are passed over, as an issuer may have them for other purposes.
fn key(jwk: &jsonwebtoken::jwk::Jwk) -> Option<Key> {
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let algorithm = match jwk.common.key_algorithm {
        // One that is no algorithm of signatures is for something else, such as encryption.
        Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        None => None,
    };
    Some(Key { id: jwk.common.key_id.clone(), algorithm, key })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_issuer_leads_to_no_worse_a_place_than_it_was_asked_at() {
        const DOCUMENT: &str = "https://me/.well-known/openid-configuration";
        let of = |document: &str, uri: &str| {
            discovered(document, &json!({ "jwks_uri": uri })).map(str::to_owned)
        };
        assert_eq!(of(DOCUMENT, "https://keys/set").unwrap(), "https://keys/set");
        let plain = DOCUMENT.replace("https", "http");
        assert!(of(&plain, "http://keys/set").is_ok() && of(&plain, "https://keys/set").is_ok());
        for uri in ["http://keys/set", "file:///keys", "keys", ""] {
            assert!(of(DOCUMENT, uri).is_err(), "{uri}");
        }
        assert!(discovered(DOCUMENT, &json!({})).is_err());
        assert!(discovered(DOCUMENT, &json!([1])).is_err());
    }
}
