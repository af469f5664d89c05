//! From converted objects to one consistent [`Cluster`]: what only shows when objects are seen
//! together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use undermesh_model::{
    Cluster, NamespacedName, ResourceRef,
    traffic::{CA_SUFFIX, DestinationRule, TlsSecret},
};

use crate::{
    convert::{self, PodRecord, RuntimeClass, ServiceRecord},
    endpoints,
    enrolment::{self, Choice},
    objects::{Objects, Placed},
    report::Report,
    traffic::{self, gateway},
};

/// Connects and checks everything.
pub(crate) fn assemble(objects: Objects, report: &mut Report) -> Cluster {
    let mut cluster = Cluster::default();
    let mut choices = BTreeMap::new();
    for placed in objects.namespaces {
        let name = placed.origin.name;
        choices.extend(placed.value.choice.map(|choice| (name.clone(), choice)));
        cluster.namespaces.insert(name, placed.value.namespace);
    }
    for placed in objects.nodes {
        cluster.nodes.insert(placed.origin.name, placed.value);
    }
    for placed in objects.service_accounts {
        cluster.service_accounts.insert(placed.name(), placed.value);
    }
    let mut pods = objects.pods;
    let classes = objects.runtime_classes;
    let classes = classes.into_iter().map(|placed| (placed.origin.name, placed.value)).collect();
    enrol(&mut pods, &choices, &classes);
    check_addresses(&pods, report);
    check_accounts(&pods, &cluster, report);
    services(objects.services, &mut cluster);
    let unread = cluster.external_names.keys().cloned().collect::<BTreeSet<_>>();
    for placed in objects.endpoint_slices {
        let service = &placed.value.service;
        if !cluster.services.contains_key(service) && !unread.contains(service) {
            let message = format!("belongs to Service {service}, which does not exist");
            let remedy = "write the Service, or correct the label";
            report.warning(&placed.subject(), &[], "endpoints-without-service", message, remedy);
        }
        cluster.endpoint_slices.insert(placed.name(), placed.value);
    }
    let derived = endpoints::derive_missing(&cluster, &pods);
    cluster.endpoint_slices.extend(derived);
    for placed in objects.peer_authentications {
        cluster.peer_authentications.insert(placed.name(), placed.value);
    }
    for placed in objects.request_authentications {
        cluster.request_authentications.insert(placed.name(), placed.value);
    }
    for placed in objects.authorization_policies {
        cluster.authorization_policies.insert(placed.name(), placed.value);
    }
    for placed in objects.mesh_configs {
        cluster.mesh_configs.insert(placed.name(), placed.value);
    }
    for placed in objects.rate_limits {
        cluster.rate_limits.insert(placed.name(), placed.value);
    }
    let (routes, grants) = (objects.gateway_routes, objects.reference_grants);
    gateway::connect(routes, &grants, &unread, &mut cluster, report);
    let (policies, maps) = (objects.backend_tls_policies, objects.config_maps);
    gateway::connect_tls(policies, &maps, &unread, &mut cluster, report);
    cluster.routes.extend(traffic::resolve(objects.virtual_services, report));
    secrets(objects.secrets, &objects.destination_rules, &mut cluster, report);
    for placed in objects.destination_rules {
        cluster.destination_rules.insert(placed.name(), placed.value);
    }
    for placed in objects.service_entries {
        cluster.service_entries.insert(placed.name(), placed.value);
    }
    for placed in objects.workload_entries {
        cluster.workload_entries.insert(placed.name(), placed.value);
    }
    cluster.workloads = pods.into_iter().map(|pod| (pod.name(), pod.value.workload)).collect();
    cluster
}

fn enrol(
    pods: &mut [Placed<PodRecord>],
    choices: &BTreeMap<String, Choice>,
    classes: &BTreeMap<String, RuntimeClass>,
) {
    for pod in pods {
        let PodRecord { workload, choice, runtime_class, .. } = &mut pod.value;
        let class = runtime_class.as_ref();
        let obstacle = if workload.host_network {
            Some("it shares the host's network namespace".to_owned())
        } else if workload.terminated {
            Some("it has finished".to_owned())
        } else {
            class.and_then(|name| convert::obstacle(name, classes.get(name)))
        };
        let namespace = choices.get(&workload.name.namespace);
        workload.enrolment = enrolment::decide(obstacle.as_deref(), choice.as_ref(), namespace);
    }
}

/// Finished pods have given their addresses back; pods of the host's network share the node's.
fn check_addresses(pods: &[Placed<PodRecord>], report: &mut Report) {
    let mut owners: HashMap<IpAddr, &ResourceRef> = HashMap::new();
    for pod in pods {
        let workload = &pod.value.workload;
        if workload.terminated || workload.host_network {
            continue;
        }
        if workload.addresses.is_empty() && workload.enrolment.is_enrolled() {
            let message = "is enrolled and has no address yet";
            let remedy = "set status.podIPs";
            report.warning(&pod.subject(), &[], "pod-without-address", message, remedy);
        }
        for address in &workload.addresses {
            if let Some(owner) = owners.insert(*address, &pod.origin) {
                let message = format!("its address {address} belongs to {owner} as well");
                let remedy = "give every pod an address of its own";
                report.error(&pod.subject(), &[], "duplicate-address", message, remedy);
            }
        }
    }
}

fn check_accounts(pods: &[Placed<PodRecord>], cluster: &Cluster, report: &mut Report) {
    for pod in pods {
        let workload = &pod.value.workload;
        let name = NamespacedName::new(&workload.name.namespace, &workload.service_account);
        if workload.service_account != "default" && !cluster.service_accounts.contains_key(&name) {
            let message = format!("its ServiceAccount {name} does not exist");
            let remedy = "write a ServiceAccount, or correct the name";
            report.warning(&pod.subject(), &[], "unknown-service-account", message, remedy);
        }
    }
}

/// Keeps the Secrets that rules name, of whatever namespace: which of them a client gets is decided where
/// clients are known.
fn secrets(
    secrets: Vec<Placed<TlsSecret>>,
    rules: &[Placed<DestinationRule>],
    cluster: &mut Cluster,
    report: &mut Report,
) {
    let named = |rule: &Placed<DestinationRule>| -> BTreeSet<String> {
        rule.value.tls().filter_map(|tls| tls.credential.clone()).collect()
    };
    let all: BTreeSet<String> = rules.iter().flat_map(named).collect();
    for placed in secrets {
        let name = &placed.origin.name;
        let own = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
        if all.contains(own) || all.contains(name) {
            cluster.tls_secrets.insert(placed.name(), placed.value);
        }
    }
    for rule in rules {
        for name in named(rule) {
            if cluster.tls_secrets.keys().any(|known| known.name == name) {
                continue;
            }
            let message = format!("credentialName: no namespace has a Secret {name}");
            let remedy = "write it, in the namespace of the clients; until then connections fail";
            report.warning(&rule.subject(), &[], "unknown-secret", message, remedy);
        }
    }
}

/// Adds the services.
fn services(services: Vec<Placed<ServiceRecord>>, cluster: &mut Cluster) {
    for placed in services {
        let name = placed.name();
        match placed.value {
            ServiceRecord::Service(service) => {
                cluster.services.insert(name, service);
            }
            ServiceRecord::External(external) => {
                cluster.external_names.insert(name, external);
            }
        }
    }
}
