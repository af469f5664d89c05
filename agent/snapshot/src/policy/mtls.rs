//! Which PeerAuthentication is in force for a workload.
//!
//! Source: Istio, `pilot/pkg/security/authn`, `ComposePeerAuthentication`: mesh, then namespace, then
//! workload; UNSET inherits; the oldest of several wins, and of those the first by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use undermesh_model::{
    Cluster, Diagnostic, MtlsMode, PeerAuthentication, ResourceRef, Severity, Workload,
};

use super::select::selects;
use crate::Options;

/// What a workload accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MtlsModes {
    /// At all ports but those below.
    pub default: MtlsMode,
    /// At ports of the pod where it is another.
    pub ports: BTreeMap<u16, MtlsMode>,
}

impl MtlsModes {
    /// The mode of a port of the pod.
    pub fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }

    /// No port takes part in mutual TLS.
    pub fn is_plain(&self) -> bool {
        self.default == MtlsMode::Disable && self.ports.is_empty()
    }
}

impl From<MtlsMode> for MtlsModes {
    fn from(default: MtlsMode) -> Self {
        Self { default, ports: BTreeMap::new() }
    }
}

/// Which PeerAuthentication says what a workload accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModesOrigin {
    /// The most specific one that says something; `None` where it is the agent's setting `mtls`.
    pub winner: Option<ResourceRef>,
    /// Those that are about the workload as well, and why they have no say, or less.
    pub losers: Vec<(ResourceRef, &'static str)>,
}

/// What a workload accepts, and which object says so. For who asks why: the compiler does not keep it.
pub fn modes_of(
    cluster: &Cluster,
    options: &Options,
    workload: &Workload,
) -> (MtlsModes, ModesOrigin) {
    let mut all = PeerAuthentications::new(cluster, options, &mut Vec::new());
    let modes = all.modes(workload);
    (modes, all.origin(workload))
}

/// All PeerAuthentications, by scope.
pub(crate) struct PeerAuthentications<'a> {
    mesh: MtlsMode,
    /// Who says what holds for the mesh.
    mesh_origin: Option<&'a PeerAuthentication>,
    namespaces: BTreeMap<&'a str, (MtlsMode, &'a PeerAuthentication)>,
    /// By namespace; the one that wins first.
    workloads: BTreeMap<&'a str, Vec<&'a PeerAuthentication>>,
    losers: BTreeSet<(&'a ResourceRef, &'a ResourceRef)>,
}

impl<'a> PeerAuthentications<'a> {
    /// Sorts them, and reports what has no effect.
    pub(crate) fn new(
        cluster: &'a Cluster,
        options: &Options,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut all: Vec<&PeerAuthentication> = cluster.peer_authentications.values().collect();
        all.sort_by_key(|one| (one.created, &one.name));
        let mut scopes: BTreeMap<&str, &PeerAuthentication> = BTreeMap::new();
        let mut workloads: BTreeMap<&str, Vec<&PeerAuthentication>> = BTreeMap::new();
        for one in all {
            let namespace = one.name.namespace.as_str();
            if !one.selector.is_empty() && namespace == options.root_namespace {
                diagnostics.push(without_effect(one, "a selector in the root namespace"));
            } else if !one.selector.is_empty() {
                workloads.entry(namespace).or_default().push(one);
            } else {
                if !one.ports.is_empty() {
                    diagnostics.push(without_effect(one, "portLevelMtls without a selector"));
                }
                match scopes.get(namespace) {
                    Some(winner) => diagnostics.push(shadowed(&one.origin, &winner.origin)),
                    None => {
                        scopes.insert(namespace, one);
                    }
                }
            }
        }
        let mesh = scopes.remove(options.root_namespace.as_str());
        let mesh_origin = mesh.filter(|one| one.mode.is_some());
        let mode = |(namespace, one): (&'a str, &'a PeerAuthentication)| {
            Some((namespace, (one.mode?, one)))
        };
        Self {
            mesh: mesh_origin.and_then(|one| one.mode).unwrap_or(options.mtls),
            mesh_origin,
            namespaces: scopes.into_iter().filter_map(mode).collect(),
            workloads,
            losers: BTreeSet::new(),
        }
    }

    /// What `workload` accepts.
    pub(crate) fn modes(&mut self, workload: &Workload) -> MtlsModes {
        let namespace = workload.name.namespace.as_str();
        let inherited = self.namespaces.get(namespace).map_or(self.mesh, |(mode, _)| *mode);
        let candidates = self.workloads.get(namespace).into_iter().flatten();
        let mut matching = candidates.filter(|one| selects(&one.selector, workload));
        let Some(winner) = matching.next() else { return inherited.into() };
        self.losers.extend(matching.map(|loser| (&loser.origin, &winner.origin)));
        let default = winner.mode.unwrap_or(inherited);
        let ports = winner.ports.iter().filter_map(|(port, mode)| Some((*port, (*mode)?)));
        MtlsModes { default, ports: ports.filter(|(_, mode)| *mode != default).collect() }
    }

    /// Who says what `workload` accepts, the most specific first.
    fn origin(&self, workload: &Workload) -> ModesOrigin {
        let namespace = workload.name.namespace.as_str();
        let candidates = self.workloads.get(namespace).into_iter().flatten();
        let mut matching = candidates.filter(|one| selects(&one.selector, workload)).copied();
        let own = matching.next();
        let mut said: Vec<(&PeerAuthentication, &'static str)> = Vec::new();
        said.extend(own.filter(|one| one.mode.is_some() || !one.ports.is_empty()).zip(Some("")));
        said.extend(matching.map(|one| (one, "an older one selects the workload too")));
        let inherited = self.namespaces.get(namespace).map(|(_, one)| *one);
        said.extend(inherited.zip(Some("one about the workload itself is more specific")));
        let mesh = self.mesh_origin;
        said.extend(mesh.zip(Some("one about the namespace or the workload is more specific")));
        let mut said = said.into_iter();
        let winner = said.next().map(|(one, _)| one.origin.clone());
        ModesOrigin { winner, losers: said.map(|(one, why)| (one.origin.clone(), why)).collect() }
    }

    /// Reports those that have matched a workload and lost it to another.
    pub(crate) fn report(self, diagnostics: &mut Vec<Diagnostic>) {
        diagnostics.extend(self.losers.iter().map(|(loser, winner)| shadowed(loser, winner)));
    }
}

fn shadowed(loser: &ResourceRef, winner: &ResourceRef) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: "shadowed-policy",
        object: Some(loser.clone()),
        position: None,
        message: format!("has no effect where {winner} is in force, which is older"),
        remedy: "keep one of them".to_owned(),
    }
}

fn without_effect(one: &PeerAuthentication, what: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: "ignored-field",
        object: Some(one.origin.clone()),
        position: None,
        message: format!("{what} has no effect"),
        remedy: "write a PeerAuthentication with a selector in the workloads' namespace".to_owned(),
    }
}
