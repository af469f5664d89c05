//! Secrets that the controller keeps things in, and ConfigMaps that it tells others by.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use zeroize::Zeroizing;

use super::{ApiError, ApiServer};

/// A Secret as it was read. `Debug` shows no value.
#[derive(Clone)]
pub struct KeptSecret {
    /// Its entries.
    pub entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The revision that it was read at; a write that is based on another one is refused.
    revision: Option<String>,
}

impl std::fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.entries.keys().collect();
        f.debug_struct("KeptSecret").field("entries", &names).field("at", &self.revision).finish()
    }
}

/// What has become of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is done.
    Done,
    /// Somebody else has written in between; read again.
    Overtaken,
}

impl KeptSecret {
    /// One that is to be made.
    pub fn new(entries: BTreeMap<String, Zeroizing<Vec<u8>>>) -> Self {
        Self { entries, annotations: BTreeMap::new(), revision: None }
    }

    /// Another content for the one that was read.
    #[must_use]
    pub fn with(
        &self,
        entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self { entries, annotations, revision: self.revision.clone() }
    }
}

impl ApiServer {
    /// Reads a Secret, if it is there.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<KeptSecret>, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let found: Option<Secret> = self.find(&path).await?;
        Ok(found.map(|secret| KeptSecret {
            entries: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name, Zeroizing::new(value.0)))
                .collect(),
            annotations: secret.metadata.annotations.unwrap_or_default(),
            revision: secret.metadata.resource_version,
        }))
    }

    /// Creates a Secret, or replaces the one that was read before.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn keep_secret(
        &self,
        namespace: &str,
        name: &str,
        secret: &KeptSecret,
    ) -> Result<Keeping, ApiError> {
        let data = secret.entries.iter();
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                annotations: Some(secret.annotations.clone()),
                resource_version: secret.revision.clone(),
                labels: Some(labels()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(
                data.map(|(name, value)| (name.clone(), ByteString(value.to_vec()))).collect(),
            ),
            ..Secret::default()
        };
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        let written: Result<serde::de::IgnoredAny, _> = match secret.revision {
            None => self.create(&path, &object).await,
            Some(_) => self.update(&format!("{path}/{name}"), &object).await,
        };
        kept(written)
    }

    /// Makes a ConfigMap hold these entries, those of others untouched. Says whether anything had to be
    /// written.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn tell(
        &self,
        namespace: &str,
        name: &str,
        entries: &BTreeMap<String, String>,
    ) -> Result<bool, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let found: Option<ConfigMap> = self.find(&format!("{path}/{name}")).await?;
        let Some(mut map) = found else {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    labels: Some(labels()),
                    ..ObjectMeta::default()
                },
                data: Some(entries.clone()),
                ..ConfigMap::default()
            };
            let _: serde::de::IgnoredAny = self.create(&path, &map).await?;
            return Ok(true);
        };
        let data = map.data.get_or_insert_default();
        if entries.iter().all(|(name, value)| data.get(name) == Some(value)) {
            return Ok(false);
        }
        data.extend(entries.clone());
        let _: serde::de::IgnoredAny = self.update(&format!("{path}/{name}"), &map).await?;
        Ok(true)
    }
}

pub(super) fn kept(written: Result<serde::de::IgnoredAny, ApiError>) -> Result<Keeping, ApiError> {
    match written {
        Ok(_) => Ok(Keeping::Done),
        // One that was deleted in between is read again as well.
        Err(error) if error.is_conflict() || error.is_missing() => Ok(Keeping::Overtaken),
        Err(error) => Err(error),
    }
}

fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/managed-by".to_owned(), "undermesh-controller".to_owned())].into()
}
