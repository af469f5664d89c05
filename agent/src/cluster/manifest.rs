//! What is installed: `deploy/kubernetes/undermesh.yaml`, which is the chart with its defaults, with another namespace,
//! image and name of the cluster in it. Who wants more of it to be different uses the chart.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{AGENT, NAMESPACE};

const MANIFEST: &str = include_str!("../../../deploy/kubernetes/undermesh.yaml");
/// Pods are made anew when it changes.
const SUM: &str = "checksum/settings";

/// What may be said about it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    namespace: String,
    pub(super) image: Option<String>,
    pub(super) cluster: Option<String>,
}

impl Wanted {
    pub(super) fn new(namespace: &str) -> Result<Self> {
        let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = !namespace.is_empty() && namespace.len() <= 63 && namespace.bytes().all(is_part);
        ensure!(
            good && !namespace.starts_with('-') && !namespace.ends_with('-'),
            "{namespace:?} is no name of a namespace"
        );
        Ok(Self { namespace: namespace.to_owned(), image: None, cluster: None })
    }

    /// The objects, in the order in which they are to be made.
    pub(super) fn objects(&self) -> Result<Vec<Value>> {
        // Its name stands in addresses and settings as well, and is part of no other word.
        let text = MANIFEST.replace(NAMESPACE, &self.namespace);
        let mut objects = serde_yaml_ng::Deserializer::from_str(&text)
            .map(Value::deserialize)
            .collect::<Result<Vec<_>, _>>()
            .context("the manifest in this binary cannot be read")?;
        objects.retain(Value::is_object);
        for object in &mut objects {
            self.put_image(object);
            if let Some(cluster) = &self.cluster {
                put_cluster(object, cluster)?;
            }
        }
        Ok(objects)
    }

    fn put_image(&self, object: &mut Value) {
        let containers = object.pointer_mut("/spec/template/spec/containers");
        let containers = containers.and_then(Value::as_array_mut).into_iter().flatten();
        if let Some(image) = &self.image {
            containers.for_each(|container| container["image"] = Value::from(image.as_str()));
        }
    }
}

fn is_agents(object: &Value, kind: &str) -> bool {
    object["kind"] == kind && object["metadata"]["name"] == AGENT
}

/// The cluster's name, where agents read it, and where their pods show that it has changed.
fn put_cluster(object: &mut Value, cluster: &str) -> Result<()> {
    if is_agents(object, "ConfigMap") {
        let text = object["data"]["agent.yaml"].as_str().context("agents have no settings")?;
        let mut settings: Value = serde_yaml_ng::from_str(text)?;
        settings["cluster"] = Value::from(cluster);
        object["data"]["agent.yaml"] = Value::from(serde_yaml_ng::to_string(&settings)?);
    } else if is_agents(object, "DaemonSet") {
        let annotations = &mut object["spec"]["template"]["metadata"]["annotations"];
        let sum = annotations[SUM].as_str().unwrap_or_default();
        annotations[SUM] = Value::from(format!("{sum}-{cluster}"));
    }
    Ok(())
}

/// The name of the cluster that agents have been given, as a ConfigMap of theirs says.
pub(super) fn cluster_of(settings: &Value) -> Option<String> {
    let text = settings["data"]["agent.yaml"].as_str()?;
    let settings: Value = serde_yaml_ng::from_str(text).ok()?;
    settings["cluster"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use undermesh_control::ObjectPath;

    use super::*;

    #[test]
    fn everything_is_in_the_namespace_that_is_said() {
        let wanted = Wanted::new("mesh").unwrap();
        let objects = wanted.objects().unwrap();
        assert!(objects.len() > 15);
        for object in &objects {
            let path = ObjectPath::of(object).unwrap();
            assert!(path.namespace.is_empty() || path.namespace == "mesh", "{path:?}");
        }
        assert!(!serde_json::to_string(&objects).unwrap().contains(NAMESPACE));
        for name in ["", "Mesh", "-a", "a-", "a.b", "a\nb: c"] {
            assert!(Wanted::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn image_and_cluster_are_put_where_they_belong_and_pods_are_made_anew() {
        let plain = Wanted::new(NAMESPACE).unwrap();
        let mut wanted = plain.clone();
        wanted.image = Some("registry.example/undermesh:2".to_owned());
        wanted.cluster = Some("east: \"1\"".to_owned());
        let objects = wanted.objects().unwrap();
        let images: Vec<&Value> = objects
            .iter()
            .filter_map(|it| it.pointer("/spec/template/spec/containers/0/image"))
            .collect();
        assert_eq!(images, ["registry.example/undermesh:2"; 2]);
        let the = |objects: &[Value], kind: &str| {
            objects.iter().find(|it| is_agents(it, kind)).unwrap().clone()
        };
        assert_eq!(cluster_of(&the(&objects, "ConfigMap")).as_deref(), Some("east: \"1\""));
        let sum = |objects: &[Value]| {
            the(objects, "DaemonSet")["spec"]["template"]["metadata"]["annotations"][SUM].clone()
        };
        assert_ne!(sum(&objects), sum(&plain.objects().unwrap()));
    }
}
