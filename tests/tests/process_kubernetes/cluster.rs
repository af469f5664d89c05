//! What any API server does, without anything going wrong: run against the one in this process, or, with
//! `KUBECONFIG` set, against that of a cluster.
//!
//! Of a cluster, it needs the rights to write namespaces, CustomResourceDefinitions and what is in them; it
//! works in a namespace of its own, and leaves nothing behind but definitions that it has not found.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use undermesh_model::{MtlsMode, NamespacedName};
use undermesh_tests::apiserver::{ApiServer, KubeClient, Options, Resource};

use crate::bench::{Dir, Followed, server};

/// A server, and a namespace in it that goes with the test.
struct Place {
    client: KubeClient,
    kubeconfig: PathBuf,
    namespace: String,
    /// Kept while it is used.
    _double: Option<ApiServer>,
}

impl Place {
    fn new(dir: &Dir, name: &str) -> Result<Self> {
        let (kubeconfig, double) = match std::env::var_os("KUBECONFIG") {
            Some(path) => (PathBuf::from(path), None),
            None => {
                let options = Options { resources: Resource::core(), ..Options::default() };
                let (server, kubeconfig) = server(dir, options)?;
                (kubeconfig, Some(server))
            }
        };
        let client = KubeClient::new(&kubeconfig)?;
        let namespace = format!("undermesh-{name}-{}", std::process::id());
        client.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"istio.io/dataplane-mode": "ambient"}},
        }))?;
        Ok(Self { client, kubeconfig, namespace, _double: double })
    }

    fn object(&self, api_version: &str, kind: &str, name: &str, more: Value) -> Value {
        let mut object = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    }

    fn name(&self, name: &str) -> NamespacedName {
        NamespacedName::new(&self.namespace, name)
    }

    fn peers(&self, mode: &str) -> Value {
        let spec = json!({"spec": {"mtls": {"mode": mode}}});
        self.object("security.istio.io/v1", "PeerAuthentication", "peers", spec)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace},
        });
        // Whoever cannot remove it any more has said so before.
        let _ = self.client.delete(&namespace);
    }
}

#[test]
fn services_and_accounts_come_change_and_go() -> Result<()> {
    let dir = Dir::new();
    let place = Place::new(&dir, "services")?;
    let service = |port: u16| {
        let spec = json!({"spec": {"ports": [{"name": "http", "port": port}]}});
        place.object("v1", "Service", "cart", spec)
    };
    place.client.apply(&service(80))?;
    let mut source = Followed::new(&dir, place.kubeconfig.clone())?;
    source.until_complete()?;
    let port = |cluster: &undermesh_model::Cluster| {
        cluster.services.get(&place.name("cart")).and_then(|it| Some(it.ports.first()?.port))
    };
    let cluster = source.until("the service", |cluster| port(cluster) == Some(80))?;
    assert!(cluster.namespaces[&place.namespace].labels.contains_key("istio.io/dataplane-mode"));
    place.client.apply(&service(81))?;
    source.until("its change", |cluster| port(cluster) == Some(81))?;
    place.client.apply(&place.object("v1", "ServiceAccount", "cart", json!({})))?;
    let account = place.name("cart");
    source.until("the account", |cluster| cluster.service_accounts.contains_key(&account))?;
    place.client.delete(&service(81))?;
    source.until("its end", |cluster| port(cluster).is_none())?;
    Ok(())
}

#[test]
fn a_kind_is_read_as_soon_as_it_is_defined() -> Result<()> {
    let dir = Dir::new();
    let place = Place::new(&dir, "kinds")?;
    let mut source = Followed::new(&dir, place.kubeconfig.clone())?;
    source.until_complete()?;
    let kind = Resource::istio().into_iter().find(|one| one.kind == "PeerAuthentication");
    let kind = kind.context("the kind is known")?;
    // A cluster may have it already, with a schema of its own.
    let missing = place.client.get("/apis/security.istio.io/v1").is_err();
    if missing {
        place.client.apply(&ApiServer::definition(&kind))?;
    }
    undermesh_tests::wait_for("the kind to be served", crate::bench::WITHIN, || {
        place.client.apply(&place.peers("STRICT")).map(Some)
    })?;
    let mode = |cluster: &undermesh_model::Cluster| {
        cluster.peer_authentications.get(&place.name("peers")).and_then(|peers| peers.mode)
    };
    source.until("the policy", |cluster| mode(cluster) == Some(MtlsMode::Strict))?;
    place.client.apply(&place.peers("DISABLE"))?;
    source.until("its change", |cluster| mode(cluster) == Some(MtlsMode::Disable))?;
    place.client.delete(&place.peers("DISABLE"))?;
    source.until("its end", |cluster| mode(cluster).is_none())?;
    Ok(())
}
