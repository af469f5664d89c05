//! Manifests as a reviewer reads them: everything that is wrong with them, and not only what keeps an agent
//! from taking them.
//!
//! Goes the same way as a source, and does not stop where that would: one object that is wrong keeps a
//! state from being published, but not the others from being looked at. What only a whole configuration
//! shows (`checks`) is looked for here; an agent, which sees every pod that starts, would say it all day.

mod checks;
mod templates;

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv6Addr,
    path::Path,
};

use undermesh_model::{Cluster, Diagnostic, ResourceRef, Severity, SourcePosition};

use crate::{
    assemble::assemble,
    convert::{self, ServiceRecord},
    files::{self, Reading},
    manifests, network_policy,
    objects::Objects,
};
use templates::Templates;

/// API groups whose objects are written for a mesh: one that is not read is worth a word.
const MESH_GROUPS: [&str; 4] =
    ["networking.istio.io", "security.istio.io", "gateway.networking.k8s.io", "undermesh.io"];

/// The discard prefix (RFC 6666), in which nobody is.
const DISCARD: u128 = 0x0100;

/// What manifests say, and what is wrong with them.
#[derive(Clone, Debug, Default)]
pub struct Analysis {
    /// All that could be read.
    pub cluster: Cluster,
    /// Every finding so far. What the compiler finds is not among them.
    pub diagnostics: Vec<Diagnostic>,
    /// Texts that were read.
    pub files: usize,
    /// Where each object stands.
    positions: HashMap<ResourceRef, SourcePosition>,
}

impl Analysis {
    /// Objects that were read.
    pub fn objects(&self) -> usize {
        self.positions.len()
    }

    /// Adds findings of others, such as the compiler's, which know objects but no files.
    pub fn add(&mut self, found: impl IntoIterator<Item = Diagnostic>) {
        for mut finding in found {
            let origin = finding.object.as_ref().filter(|_| finding.position.is_none());
            finding.position =
                origin.and_then(|origin| self.positions.get(origin).cloned()).or(finding.position);
            self.diagnostics.push(finding);
        }
    }

    /// The findings, each once, in the order of files and lines; those without come last.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let key = |finding: &Diagnostic| {
            let position = finding.position.clone().map(|at| (at.file, at.line));
            (position.is_none(), position, std::cmp::Reverse(finding.severity))
        };
        let mut seen = BTreeSet::new();
        let mut findings = self.diagnostics;
        findings.retain(|finding| seen.insert(finding.to_string()));
        findings.sort_by_cached_key(key);
        findings
    }
}

/// Manifests to be read.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A file, or a directory of `*.yaml`, `*.yml` and `*.json`.
    Path(&'a Path),
    /// A text, and what it is called in findings.
    Text(&'a Path, &'a str),
}

/// Reads manifests as if they were all that a cluster has. What cannot be read is among the findings.
pub fn analyze(inputs: &[Input<'_>]) -> Analysis {
    let mut reading = Reading::default();
    for input in inputs {
        match input {
            Input::Path(path) => reading.append(files::read_path(path)),
            Input::Text(name, text) => {
                reading.texts.push(((*name).to_owned(), (*text).to_owned()));
            }
        }
    }
    let mut analysis = Analysis { files: reading.texts.len(), ..Analysis::default() };
    let mut objects = Objects::default();
    let mut report = reading.report;
    for (file, text) in &reading.texts {
        manifests::read(text, file, &mut objects, &mut report);
    }
    analysis.positions = objects.positions();
    give_addresses(&mut objects);
    analysis.cluster = assemble(objects, &mut report);
    analysis.diagnostics = report.into_diagnostics().into_iter().filter_map(of_a_cluster).collect();
    let templates = Templates::read(&reading.texts);
    let mut found = checks::run(&analysis.cluster, &templates);
    let (blocked, places) = network_policy::blocked_in(&reading.texts, &analysis.cluster);
    analysis.positions.extend(places);
    found.extend(blocked.iter().map(checks::blocked));
    analysis.add(found);
    analysis
}

/// What only a whole configuration shows of one that is in force: policies that select nothing, services and subsets
/// without pods, and the like.
pub fn whole(cluster: &Cluster) -> Vec<Diagnostic> {
    checks::run(cluster, &Templates::default())
}

/// An API server gives an address to each Service that names none.
fn give_addresses(objects: &mut Objects) {
    for (number, placed) in (1_u32..).zip(&mut objects.services) {
        if let ServiceRecord::Service(service) = &mut placed.value
            && service.cluster_ips.is_empty()
            && !service.headless
        {
            let address = (DISCARD << 112) | (1 << 64) | u128::from(number);
            service.cluster_ips.push(Ipv6Addr::from(address).into());
        }
    }
}

/// What a source says of a directory that is all it has, as it is meant for who writes manifests for a cluster: kinds
/// of others are none of their business, and neither is what an API server will fill in. Beside manifests,
/// there may be files of other tools.
fn of_a_cluster(mut finding: Diagnostic) -> Option<Diagnostic> {
    let of_mesh = |group: &&str| finding.message.contains(&format!("({group}/"));
    match finding.code {
        convert::SERVICE_WITHOUT_ADDRESS => return None,
        manifests::UNREAD_KIND if !MESH_GROUPS.iter().any(of_mesh) => return None,
        manifests::NO_OBJECT => {
            finding.severity = Severity::Info;
            finding.remedy = "if it is to be an object of Kubernetes, write its kind".to_owned();
        }
        _ => {}
    }
    Some(finding)
}

/// A finding about an object; its place is found later.
fn warning(
    code: &'static str,
    object: &ResourceRef,
    message: impl Into<String>,
    remedy: &str,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code,
        object: Some(object.clone()),
        position: None,
        message: message.into(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests;
