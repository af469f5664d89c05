//! What BackendTLSPolicies name in other objects.

use std::collections::{BTreeSet, HashMap};

use undermesh_model::{
    Cluster, NamespacedName,
    traffic::{BackendTls, KeyMaterial},
};

use super::{Target, TlsDraft};
use crate::{convert::Roots, objects::Placed, report::Report};

/// How a certificate begins in PEM.
const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// Adds the policies to the cluster, once its Services are there. `unread` are Services that exist and
/// cannot be sent to.
pub(crate) fn connect_tls(
    policies: Vec<Placed<TlsDraft>>,
    config_maps: &[Placed<Roots>],
    unread: &BTreeSet<NamespacedName>,
    cluster: &mut Cluster,
    report: &mut Report,
) {
    let maps: HashMap<_, _> = config_maps.iter().map(|map| (map.name(), &map.value)).collect();
    for policy in policies {
        let mut tls = policy.value.tls.clone();
        if !policy.value.roots.is_empty() {
            // Nothing at all where no reference can be used: nobody is trusted then, and connections fail.
            let roots = policy.value.roots.iter().filter_map(|one| root(one, &maps, report));
            tls.ca = Some(KeyMaterial::inline(roots.collect::<Vec<_>>().join("\n")));
        }
        for target in &policy.value.targets {
            let Some(port) = port(target, unread, cluster, report) else { continue };
            cluster.backend_tls.push(BackendTls {
                origin: policy.origin.clone(),
                precedence: policy.value.precedence,
                created: policy.value.created,
                service: target.value.service.clone(),
                port,
                tls: tls.clone(),
            });
        }
    }
}

/// The roots that a reference leads to.
fn root<'a>(
    reference: &Placed<Option<NamespacedName>>,
    maps: &HashMap<NamespacedName, &'a Roots>,
    report: &mut Report,
) -> Option<&'a str> {
    // What it is that can lead nowhere has been said.
    let name = reference.value.as_ref()?;
    let found = match maps.get(name) {
        None => Err(format!("ConfigMap {name} does not exist")),
        Some(None) => Err(format!("ConfigMap {name} has no key \"ca.crt\"")),
        Some(Some(roots)) if !roots.contains(PEM) => {
            Err(format!("\"ca.crt\" of ConfigMap {name} is no certificate in PEM"))
        }
        Some(Some(roots)) => Ok(roots.as_str()),
    };
    let tell = |message: String| {
        let remedy = "correct it; until then nothing is trusted because of it";
        report.warning(&reference.subject(), &[], "invalid-ca-reference", message, remedy);
    };
    found.map_err(tell).ok()
}

/// The port that is meant, `Some(None)` for all; `None` where there is no such thing.
fn port(
    target: &Placed<Target>,
    unread: &BTreeSet<NamespacedName>,
    cluster: &Cluster,
    report: &mut Report,
) -> Option<Option<u16>> {
    let Target { service, section } = &target.value;
    let message = match (cluster.services.get(service), section) {
        (Some(_), None) => return Some(None),
        (Some(found), Some(name)) => match found.ports.iter().find(|port| port.name == *name) {
            Some(port) => return Some(Some(port.port)),
            None => format!("Service {service} has no port named {name:?}"),
        },
        (None, _) if unread.contains(service) => {
            format!("Service {service} is of a type that is not supported")
        }
        (None, _) => format!("Service {service} does not exist"),
    };
    let remedy = "correct the targetRef; until then it is ignored";
    report.warning(&target.subject(), &[], "unknown-target", message, remedy);
    None
}
