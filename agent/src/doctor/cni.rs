//! Which network plugin serves this node.

use std::{fs, path::Path};

use serde::Deserialize;
use undermesh_datapath::interfaces;

use super::{catalogue::Kind, finding::Finding, situation::Situation};

const DIRECTORY: &str = "/etc/cni/net.d";
/// Configuration files that are read, and the most of each, in bytes.
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 1 << 20;
/// Interfaces that plugins make on the node.
const INTERFACES: [(&str, &str); 8] = [
    ("cilium_host", "Cilium"),
    ("vxlan.calico", "Calico"),
    ("tunl0", "Calico"),
    ("flannel.1", "Flannel"),
    ("weave", "Weave Net"),
    ("antrea-gw0", "Antrea"),
    ("ovn-k8s-mp0", "OVN-Kubernetes"),
    ("kube-ipvs0", "kube-proxy in IPVS mode"),
];

/// A configuration file, of one plugin or of a list (CNI specification, section 1).
#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(rename = "type")]
    kind: String,
}

pub(super) fn check(_: &Situation) -> Vec<Finding> {
    let known = interfaces(None).unwrap_or_default();
    let on_node = known.iter().filter_map(|interface| {
        let (name, plugin) = INTERFACES.iter().find(|(name, _)| *name == interface.name)?;
        Some(Finding::new(Kind::CniFound, *name, format!("an interface of {plugin}")))
    });
    configured(Path::new(DIRECTORY)).into_iter().chain(on_node).collect()
}

/// The first file in order is the one that a runtime uses; the others are worth knowing too.
fn configured(dir: &Path) -> Vec<Finding> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("conf" | "conflist" | "json"))
        })
        .take(MAX_FILES)
        .collect();
    paths.sort();
    let finding = |path: &std::path::PathBuf| {
        Finding::new(Kind::CniFound, path.display().to_string(), describe(path))
    };
    paths.iter().map(finding).collect()
}

fn describe(path: &Path) -> String {
    let is_short =
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() < MAX_BYTES);
    let text = if is_short { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    match serde_json::from_str::<Configuration>(&text) {
        Ok(Configuration { name, kind, plugins }) => {
            let mut kinds: Vec<&str> = plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
            if kinds.is_empty() {
                kinds.push(&kind);
            }
            format!("network {name:?} by {}", kinds.join(", "))
        }
        Err(error) => format!("it cannot be read: {error}"),
    }
}
