//! The Kubernetes objects that describe a rig, written as files that agents reload.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::topology::{Family, Node, PodPlace};

/// The namespace of everything in a rig.
pub(crate) const NAMESPACE: &str = "shop";

/// What the manifests say about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In the manifests, with the label that enrols it.
    Enrolled,
    /// In the manifests, without that label.
    Listed,
    /// Not in the manifests: a stranger.
    Unlisted,
}

/// A pod to be built.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Name; unique in the rig, short, and the default for the service account.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// What the manifests say.
    pub placement: Placement,
    /// Annotations of the mesh, without their prefix.
    pub annotations: Vec<(String, String)>,
    /// Labels beside those that every pod has.
    pub labels: Vec<(String, String)>,
}

impl PodSpec {
    /// An enrolled pod with a service account of its own name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            service_account: name.to_owned(),
            placement: Placement::Enrolled,
            annotations: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// The same pod in another Kubernetes namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// The same pod with the annotation `undermesh.io/NAME`.
    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same pod with one more label.
    #[must_use]
    pub fn labelled(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same pod, in the manifests but not enrolled.
    #[must_use]
    pub fn listed(self) -> Self {
        Self { placement: Placement::Listed, ..self }
    }

    /// The same pod, unknown to the manifests.
    #[must_use]
    pub fn unlisted(self) -> Self {
        Self { placement: Placement::Unlisted, ..self }
    }
}

/// A service to be written; its virtual addresses are given out in order.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// Name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pairs of service port and target port.
    pub ports: Vec<(u16, u16)>,
    /// Names of ports that are not called `tcp-NUMBER`.
    pub port_names: BTreeMap<u16, String>,
    /// `appProtocol` of ports that have one.
    pub app_protocols: BTreeMap<u16, String>,
    /// Has the proxy look at what no rule is about.
    pub looked_at: bool,
    /// Names of the pods behind it.
    pub backends: Vec<String>,
    /// `clusterIP: None`.
    pub headless: bool,
}

impl ServiceSpec {
    /// A service with one port.
    pub fn new(name: &str, port: u16, target: u16, backends: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            ports: vec![(port, target)],
            port_names: BTreeMap::new(),
            app_protocols: BTreeMap::new(),
            looked_at: false,
            backends: backends.iter().map(|pod| (*pod).to_owned()).collect(),
            headless: false,
        }
    }

    /// The same service with these ports instead.
    #[must_use]
    pub fn ports(self, ports: impl IntoIterator<Item = (u16, u16)>) -> Self {
        Self { ports: ports.into_iter().collect(), ..self }
    }

    /// The same service in another Kubernetes namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// The same service with one more port, of this name.
    #[must_use]
    pub fn port(mut self, port: u16, target: u16, name: &str) -> Self {
        self.ports.retain(|(known, _)| *known != port);
        self.ports.push((port, target));
        self.port_names.insert(port, name.to_owned());
        self
    }

    /// The same service, whose `port` has this `appProtocol`.
    #[must_use]
    pub fn app_protocol(mut self, port: u16, protocol: &str) -> Self {
        self.app_protocols.insert(port, protocol.to_owned());
        self
    }

    /// The same service with the annotation `undermesh.io/l7: "true"`.
    #[must_use]
    pub fn looked_at(self) -> Self {
        Self { looked_at: true, ..self }
    }

    fn port_name(&self, port: u16) -> String {
        self.port_names.get(&port).cloned().unwrap_or_else(|| format!("tcp-{port}"))
    }

    /// The same service without virtual addresses.
    #[must_use]
    pub fn headless(self) -> Self {
        Self { headless: true, ..self }
    }
}

/// The manifest directory of a rig; all its agents read it.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    virtual_ips: BTreeMap<String, (Ipv4Addr, Ipv6Addr)>,
}

impl Manifests {
    pub(crate) fn create(dir: &Path, nodes: &[Node]) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let manifests = Self { dir: dir.to_owned(), virtual_ips: BTreeMap::new() };
        manifests.write("namespace", &head("v1", "Namespace", "", NAMESPACE, ""))?;
        for node in nodes {
            manifests.write(&format!("node-{}", node.name), &node_yaml(node))?;
        }
        Ok(manifests)
    }

    /// Writes a file, whole at once, as an editor or `kubectl` would replace it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let path = self.path(name);
        // Outside the directory, so that no agent reads half a file.
        let draft = self.dir.with_extension(format!("{name}.draft"));
        fs::write(&draft, yaml)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// The file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.yaml"))
    }

    /// Writes a pod as its specification says, or as `placement` says instead.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn pod(&self, place: &PodPlace, placement: Placement) -> Result<()> {
        let name = format!("pod-{}", place.spec.name);
        match placement {
            Placement::Unlisted => match fs::remove_file(self.path(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
            Placement::Enrolled => self.write(&name, &pod_yaml(place, true)),
            Placement::Listed => self.write(&name, &pod_yaml(place, false)),
        }
    }

    /// Writes a service and its endpoint slices, one for each family.
    ///
    /// # Errors
    /// Where a backend is not a pod of the rig, or a file cannot be written.
    pub fn service(&mut self, spec: &ServiceSpec, pods: &[PodPlace]) -> Result<()> {
        let number = u16::try_from(self.virtual_ips.len() + 1)?;
        let [high, low] = number.to_be_bytes();
        let fresh =
            (Ipv4Addr::new(10, 96, high, low), Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number));
        let ips = self.virtual_ips.entry(spec.name.clone()).or_insert(fresh);
        let mut yaml = service_yaml(spec, *ips);
        for family in [Family::V4, Family::V6] {
            let addresses = spec.backends.iter().map(|name| {
                let place = pods.iter().find(|place| place.spec.name == *name);
                Ok(place.with_context(|| format!("no pod {name} in this rig"))?.ip(family))
            });
            let addresses: Vec<IpAddr> = addresses.collect::<Result<_>>()?;
            yaml.push_str("---\n");
            yaml.push_str(&slice_yaml(spec, family, &addresses));
        }
        self.write(&format!("service-{}", spec.name), &yaml)
    }

    /// A port of a service's virtual address.
    ///
    /// # Errors
    /// Where no such service has been written.
    pub fn vip(&self, service: &str, family: Family, port: u16) -> Result<SocketAddr> {
        let (v4, v6) = self
            .virtual_ips
            .get(service)
            .with_context(|| format!("no service {service} in this rig"))?;
        Ok(match family {
            Family::V4 => SocketAddr::new((*v4).into(), port),
            Family::V6 => SocketAddr::new((*v6).into(), port),
        })
    }
}

/// The first lines of an object, in a namespace unless it is one that has none.
fn head(version: &str, kind: &str, namespace: &str, name: &str, metadata: &str) -> String {
    let namespace = match kind {
        "Namespace" | "Node" => String::new(),
        _ => format!("\n  namespace: {namespace}"),
    };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}{namespace}\n{metadata}")
}

fn node_yaml(node: &Node) -> String {
    let mut yaml = head("v1", "Node", "", &node.name, "");
    yaml.push_str("status:\n  addresses:\n");
    for address in &node.addresses {
        let _ = writeln!(yaml, "  - type: InternalIP\n    address: \"{address}\"");
    }
    yaml
}

fn pod_yaml(place: &PodPlace, enrolled: bool) -> String {
    let spec = &place.spec;
    let mut labels = String::new();
    if enrolled {
        labels.push_str("\n    istio.io/dataplane-mode: ambient");
    }
    for (name, value) in &spec.labels {
        let _ = write!(labels, "\n    {name}: {value}");
    }
    let mut metadata = format!(
        "  labels:\n    app: {app}{labels}\n  annotations:\n    undermesh.io/netns: {netns}\n",
        app = spec.name,
        netns = place.netns.path().display(),
    );
    for (name, value) in &spec.annotations {
        let _ = writeln!(metadata, "    undermesh.io/{name}: '{value}'");
    }
    format!(
        "{account}---\n{pod}spec:\n  nodeName: {node}\n  serviceAccountName: {sa}\n\
         status:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n  - ip: {v4}\n  - ip: \"{v6}\"\n",
        account = head("v1", "ServiceAccount", &spec.namespace, &spec.service_account, ""),
        pod = head("v1", "Pod", &spec.namespace, &spec.name, &metadata),
        node = place.node,
        sa = spec.service_account,
        v4 = place.v4,
        v6 = place.v6,
    )
}

fn service_yaml(spec: &ServiceSpec, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> String {
    let metadata =
        if spec.looked_at { "  annotations:\n    undermesh.io/l7: \"true\"\n" } else { "" };
    let mut yaml = head("v1", "Service", &spec.namespace, &spec.name, metadata);
    let ips = if spec.headless {
        "  clusterIP: None\n".to_owned()
    } else {
        format!("  clusterIP: {v4}\n  clusterIPs:\n  - {v4}\n  - \"{v6}\"\n")
    };
    let _ = write!(
        yaml,
        "spec:\n{ips}  ipFamilyPolicy: RequireDualStack\n  selector:\n    service: {name}\n  ports:\n",
        name = spec.name
    );
    for (port, target) in &spec.ports {
        let _ = writeln!(
            yaml,
            "  - name: {name}\n    port: {port}\n    targetPort: {target}\n    protocol: TCP",
            name = spec.port_name(*port),
        );
        if let Some(protocol) = spec.app_protocols.get(port) {
            let _ = writeln!(yaml, "    appProtocol: {protocol}");
        }
    }
    yaml
}

fn slice_yaml(spec: &ServiceSpec, family: Family, addresses: &[IpAddr]) -> String {
    let (suffix, kind) = match family {
        Family::V4 => ("v4", "IPv4"),
        Family::V6 => ("v6", "IPv6"),
    };
    let metadata = format!("  labels:\n    kubernetes.io/service-name: {}\n", spec.name);
    let name = format!("{}-{suffix}", spec.name);
    let mut yaml = head("discovery.k8s.io/v1", "EndpointSlice", &spec.namespace, &name, &metadata);
    let _ = writeln!(yaml, "addressType: {kind}\nports:");
    for (port, target) in &spec.ports {
        let name = spec.port_name(*port);
        let _ = writeln!(yaml, "- name: {name}\n  port: {target}\n  protocol: TCP");
    }
    let none = if addresses.is_empty() { " []" } else { "" };
    let _ = writeln!(yaml, "endpoints:{none}");
    for address in addresses {
        let _ = writeln!(yaml, "- addresses:\n  - \"{address}\"\n  conditions:\n    ready: true");
    }
    yaml
}
