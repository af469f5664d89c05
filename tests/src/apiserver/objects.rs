//! What tests do to a server's objects themselves, past hooks and faults.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiServer, discovery, resource::Resource, store::Key, write};

impl ApiServer {
    /// Adds a kind; one that is not built in by a CustomResourceDefinition, as everybody does it.
    ///
    /// # Errors
    /// Where the definition is refused.
    pub fn install(&self, resource: &Resource) -> Result<()> {
        if !resource.built_in {
            return self.put(&discovery::definition(resource)).map(drop);
        }
        self.shared.write(|store| store.resources.push(resource.clone()));
        Ok(())
    }

    /// Removes a kind that a CustomResourceDefinition has added, and all of its objects.
    pub fn uninstall(&self, resource: &Resource) {
        self.delete(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "",
            &resource.full_name(),
        );
    }

    /// Creates an object or replaces it, its status included, past hooks and faults. Makes its namespace
    /// where there is none.
    ///
    /// # Errors
    /// Where its kind is not there.
    pub fn put(&self, object: &Value) -> Result<Value> {
        let resource = self.shared.store().resource_of(object).cloned();
        let resource = resource.with_context(|| {
            format!("there is no kind {} in {}", object["kind"], object["apiVersion"])
        })?;
        let mut object = object.clone();
        let metadata = &mut object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        ensure!(!name.is_empty(), "an object has no name");
        if resource.namespaced && metadata["namespace"].is_null() {
            metadata["namespace"] = json!("default");
        }
        let namespace = metadata["namespace"].as_str().unwrap_or_default().to_owned();
        if resource.namespaced && self.get("v1", "Namespace", "", &namespace).is_none() {
            self.put(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
            }))?;
        }
        let key = Key { resource: resource.full_name(), namespace, name };
        let stored = self.shared.write(|store| {
            let metadata = &mut object["metadata"];
            if let Some(before) = store.get(&key) {
                for field in ["uid", "creationTimestamp"] {
                    if metadata[field].is_null() {
                        metadata[field] = before["metadata"][field].clone();
                    }
                }
                let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
                let changed = u64::from(before["spec"] != object["spec"]);
                object["metadata"]["generation"] = json!(generation + changed);
            } else {
                metadata["generation"] = json!(1);
            }
            write::save(store, key, object, &resource)
        });
        Ok(Value::clone(&stored))
    }

    /// Puts every document of a text, and the items of lists.
    ///
    /// # Errors
    /// As [`Self::put`], and where it is no YAML.
    pub fn put_yaml(&self, text: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object = Value::deserialize(document)?;
            match object["items"].as_array() {
                Some(items) if object["kind"] == "List" => {
                    items.iter().try_for_each(|item| self.put(item).map(drop))?;
                }
                _ if object.is_null() => {}
                _ => drop(self.put(&object)?),
            }
        }
        Ok(())
    }

    /// An object, in whatever version it was stored.
    pub fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let (key, _) = self.locate(api_version, kind, namespace, name)?;
        let object = self.shared.store().get(&key)?;
        Some(Value::clone(&object))
    }

    /// Names of all objects of a kind.
    pub fn names(&self, api_version: &str, kind: &str) -> Vec<String> {
        let Some((probe, _)) = self.locate(api_version, kind, "", "") else { return Vec::new() };
        let keys = self.shared.store().keys(|key| key.resource == probe.resource);
        keys.into_iter().map(|key| key.name).collect()
    }

    /// Deletes an object, or marks it where it has finalizers; whether it was there.
    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let Some((key, resource)) = self.locate(api_version, kind, namespace, name) else {
            return false;
        };
        self.shared.write(|store| !write::discard(store, key, &resource).is_null())
    }

    /// The CustomResourceDefinition of a kind, as somebody would write it.
    pub fn definition(resource: &Resource) -> Value {
        discovery::definition(resource)
    }

    fn locate(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<(Key, Resource)> {
        let probe = json!({"apiVersion": api_version, "kind": kind});
        let resource = self.shared.store().resource_of(&probe)?.clone();
        let namespace = if resource.namespaced { namespace } else { "" };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Some((Key { resource: resource.full_name(), namespace, name }, resource))
    }
}
