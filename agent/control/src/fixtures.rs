//! What the tests of this crate share: manifests, directories that vanish, and short findings.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use undermesh_model::{Cluster, NamespacedName};

use crate::{Loaded, ManifestSource, parse_manifests};

/// A pod that nothing is said against, given [`ACCOUNT`].
pub(crate) const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  labels: {app: cart, istio.io/dataplane-mode: ambient}
  annotations: {undermesh.io/netns: /run/netns/cart}
spec:
  nodeName: node-a
  serviceAccountName: cart
  containers:
  - name: app
    resources: {limits: {cpu: 1}}
    ports:
    - {name: http, containerPort: 8080}
status:
  podIPs:
  - ip: 10.1.0.2
  - ip: fd00::2
";

/// The account of [`POD`].
pub(crate) const ACCOUNT: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
";

/// A service that selects [`POD`].
pub(crate) const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports:
  - {name: web, port: 80, targetPort: http}
  - {name: raw, port: 90, targetPort: 9090}
";

/// Joins manifests to one text.
pub(crate) fn documents(texts: &[&str]) -> String {
    texts.join("---\n")
}

/// Reads a text as the file `all.yaml`.
pub(crate) fn load(text: &str) -> Loaded {
    parse_manifests(text, Path::new("all.yaml"))
}

/// The cluster of a text without errors.
pub(crate) fn cluster(text: &str) -> Cluster {
    let loaded = load(text);
    loaded.cluster.unwrap_or_else(|| panic!("rejected: {:#?}", loaded.diagnostics))
}

/// The findings about a text, one line each, with their severity first.
pub(crate) fn findings(text: &str) -> Vec<String> {
    let diagnostics = load(text).diagnostics;
    diagnostics.iter().map(|found| format!("{:?} {found}", found.severity)).collect()
}

/// A name in the namespace `shop`.
pub(crate) fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

/// A directory that goes with the test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("undermesh-control-{}-{id}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let dir = Self(path);
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    pub(crate) fn source(&self) -> ManifestSource {
        ManifestSource::new(&self.0)
    }

    /// The findings, one line each, without the directory.
    pub(crate) fn findings(&self) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        let diagnostics = self.source().load().diagnostics;
        diagnostics.iter().map(|found| found.to_string().replace(&prefix, "")).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
