//! From typed objects to one consistent [`Cluster`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use undermesh_model::{Cluster, Namespace, NamespacedName, ResourceRef, ServiceAccount};

use crate::{
    convert::{self, PodRecord},
    endpoints,
    enrolment::{self, Choice},
    objects::{Objects, Placed},
    report::{Report, Subject},
    security,
};

/// Converts, connects and checks everything.
pub(crate) fn assemble(objects: &Objects, report: &mut Report) -> Cluster {
    let mut cluster = Cluster::default();
    duplicates(objects, report);
    let choices = namespaces(objects, &mut cluster, report);
    for placed in &objects.nodes {
        cluster.nodes.insert(placed.origin.name.clone(), convert::node(placed, report));
    }
    for placed in &objects.service_accounts {
        let account = ServiceAccount { origin: placed.origin.clone() };
        cluster.service_accounts.insert(key(&placed.origin), account);
    }
    let pods = pods(objects, &choices, &cluster, report);
    services(objects, &pods, &mut cluster, report);
    policies(objects, &mut cluster, report);
    cluster.workloads =
        pods.into_iter().map(|pod| (pod.workload.name.clone(), pod.workload)).collect();
    cluster
}

fn key(origin: &ResourceRef) -> NamespacedName {
    NamespacedName::new(&origin.namespace, &origin.name)
}

fn namespaces(
    objects: &Objects,
    cluster: &mut Cluster,
    report: &mut Report,
) -> BTreeMap<String, Choice> {
    let mut choices = BTreeMap::new();
    for placed in &objects.namespaces {
        let labels = placed.object.metadata.labels.clone().unwrap_or_default();
        let choice = enrolment::choice(&labels, &placed.origin, &placed.subject(), report);
        choices.extend(choice.map(|choice| (placed.origin.name.clone(), choice)));
        let namespace = Namespace { origin: placed.origin.clone(), labels };
        cluster.namespaces.insert(placed.origin.name.clone(), namespace);
    }
    choices
}

fn pods(
    objects: &Objects,
    choices: &BTreeMap<String, Choice>,
    cluster: &Cluster,
    report: &mut Report,
) -> Vec<PodRecord> {
    let mut owners: HashMap<IpAddr, ResourceRef> = HashMap::new();
    let mut pods = Vec::new();
    for placed in &objects.pods {
        let subject = placed.subject();
        let mut pod = convert::pod(placed, report);
        let workload = &mut pod.workload;
        let own = enrolment::choice(&workload.labels, &placed.origin, &subject, report);
        workload.enrolment = enrolment::decide(
            workload.host_network,
            workload.terminated,
            own,
            choices.get(&workload.name.namespace),
        );
        check_addresses(&pod, &subject, &mut owners, report);
        check_account(&pod, cluster, &subject, report);
        pods.push(pod);
    }
    pods
}

fn check_addresses(
    pod: &PodRecord,
    subject: &Subject,
    owners: &mut HashMap<IpAddr, ResourceRef>,
    report: &mut Report,
) {
    let workload = &pod.workload;
    if workload.terminated || workload.host_network {
        return;
    }
    if workload.addresses.is_empty() && workload.enrolment.is_enrolled() {
        let message = "is enrolled and has no address yet";
        report.warning(subject, "pod-without-address", message, "set status.podIPs");
    }
    for address in &workload.addresses {
        if let Some(owner) = owners.insert(*address, workload.origin.clone()) {
            let message = format!("its address {address} belongs to {owner} as well");
            report.error(
                subject,
                "duplicate-address",
                message,
                "give every pod an address of its own",
            );
        }
    }
}

fn check_account(pod: &PodRecord, cluster: &Cluster, subject: &Subject, report: &mut Report) {
    let workload = &pod.workload;
    let name = NamespacedName::new(&workload.name.namespace, &workload.service_account);
    if workload.service_account != "default" && !cluster.service_accounts.contains_key(&name) {
        let message = format!("its ServiceAccount {name} does not exist");
        report.warning(
            subject,
            "unknown-service-account",
            message,
            "write a ServiceAccount, or correct the name",
        );
    }
}

fn services(objects: &Objects, pods: &[PodRecord], cluster: &mut Cluster, report: &mut Report) {
    for placed in &objects.services {
        let service = convert::service(placed, report);
        cluster.services.extend(service.map(|service| (service.name.clone(), service)));
    }
    for placed in &objects.endpoint_slices {
        if let Some(slice) = convert::endpoint_slice(placed, report) {
            if !cluster.services.contains_key(&slice.service) {
                let message = format!("belongs to Service {}, which does not exist", slice.service);
                let remedy = "write the Service, or correct the label";
                report.warning(&placed.subject(), "endpoints-without-service", message, remedy);
            }
            cluster.endpoint_slices.insert(key(&placed.origin), slice);
        }
    }
    let covered: BTreeSet<NamespacedName> =
        cluster.endpoint_slices.values().map(|slice| slice.service.clone()).collect();
    let mut derived = BTreeMap::new();
    for service in endpoints::without_slices(cluster.services.values(), &covered) {
        derived.append(&mut endpoints::derive(service, pods.iter()));
    }
    cluster.endpoint_slices.append(&mut derived);
}

fn policies(objects: &Objects, cluster: &mut Cluster, report: &mut Report) {
    for placed in &objects.peer_authentications {
        let read = security::peer_authentication(placed, report);
        cluster.peer_authentications.insert(key(&placed.origin), read);
    }
    for placed in &objects.authorization_policies {
        let read = security::authorization_policy(placed, report);
        cluster.authorization_policies.extend(read.map(|read| (key(&placed.origin), read)));
    }
}

/// Reports every object that is written twice.
fn duplicates(objects: &Objects, report: &mut Report) {
    check_duplicates(&objects.namespaces, report);
    check_duplicates(&objects.nodes, report);
    check_duplicates(&objects.service_accounts, report);
    check_duplicates(&objects.pods, report);
    check_duplicates(&objects.services, report);
    check_duplicates(&objects.endpoint_slices, report);
    check_duplicates(&objects.peer_authentications, report);
    check_duplicates(&objects.authorization_policies, report);
}

fn check_duplicates<T>(placed: &[Placed<T>], report: &mut Report)
where
    ResourceRef: Hash + Eq,
{
    let mut seen = HashMap::new();
    for object in placed {
        if let Some(first) = seen.insert(&object.origin, &object.position) {
            let message = format!("is written twice; the first is at {first}");
            report.error(&object.subject(), "duplicate-object", message, "remove one of them");
        }
    }
}
