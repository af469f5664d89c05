//! Steps *resolve* and *plan*: everything about an outbound connection that can be decided before
//! a socket is touched. Knows the snapshot, and no I/O.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{MtlsMode, Wire};
use undermesh_snapshot::{Destination, OutboundPolicy, ServicePortRoute, Snapshot, WorkloadInfo};

use crate::{balance, error::Failure};

/// What will be done about one outbound connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The address that the application dialled.
    pub(crate) dialled: SocketAddr,
    /// The snapshot that the decision comes from.
    pub(crate) generation: u64,
    /// The service, where the address is a virtual one.
    pub(crate) service: Option<Arc<ServicePortRoute>>,
    /// Nobody has registered the destination for the client, and nothing else may be dialled.
    pub(crate) unregistered: bool,
    /// Where to connect: the first, and the next ones should it fail before it carried a byte.
    /// Empty when a service has no ready endpoint.
    pub(crate) targets: Vec<Target>,
}

impl Plan {
    /// How it ends where no target is left to be tried.
    pub(crate) fn refusal(&self) -> Failure {
        let dialled = self.dialled;
        if self.unregistered {
            Failure::NotRegistered { dialled }
        } else {
            Failure::NoEndpoints { dialled }
        }
    }
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Address and port of the application.
    pub(crate) address: SocketAddr,
    /// The enrolled workload there, if there is one.
    pub(crate) workload: Option<Arc<WorkloadInfo>>,
    /// How it is reached, with proof of this very identity. `None`: nobody enrolled is there, or it
    /// takes only plaintext (`DISABLE`), and the connection is passed on as it is.
    pub(crate) wire: Option<Wire>,
}

impl Target {
    pub(crate) fn new(address: SocketAddr, workload: Option<&Arc<WorkloadInfo>>) -> Self {
        let mode = workload.map(|workload| workload.mtls.of(address.port()));
        let meshed = workload.filter(|_| mode.is_some_and(|mode| mode != MtlsMode::Disable));
        let wire = meshed.map(|workload| workload.wire);
        Self { address, workload: workload.map(Arc::clone), wire }
    }
}

/// Who dials, as far as plans look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialler<'a> {
    /// The address that the kernel, too, knows it by.
    pub(crate) address: IpAddr,
    /// Of its pod.
    pub(crate) namespace: &'a str,
}

/// Resolves what `client` has dialled and orders the endpoints behind it. `pick(n)` chooses one of
/// `0..n`.
pub(crate) fn decide(
    snapshot: &Snapshot,
    client: Dialler<'_>,
    dialled: SocketAddr,
    attempts: usize,
    pick: impl FnMut(usize) -> usize,
) -> Plan {
    let (service, targets) = match destination(snapshot, client, dialled) {
        Destination::Service(route) | Destination::Block(route) => {
            // The kernel leads all connections here where a rule is about those of any client.
            let all_here = !route.traffic.is_empty();
            let first = route.affine(client.address);
            let targets = balance::order(&route.endpoints, all_here, first, attempts, pick);
            (Some(Arc::clone(route)), targets)
        }
        Destination::Workload(workload) => (None, vec![Target::new(dialled, Some(workload))]),
        Destination::Outside => {
            let open = snapshot.options.outbound_policy == OutboundPolicy::AllowAny;
            (None, open.then(|| Target::new(dialled, None)).into_iter().collect())
        }
    };
    let unregistered = service.is_none() && targets.is_empty();
    Plan { dialled, generation: snapshot.generation.0, service, unregistered, targets }
}

/// What an address stands for to a client: a ServiceEntry that is not for it is as if it were not there.
fn destination<'a>(
    snapshot: &'a Snapshot,
    client: Dialler<'_>,
    dialled: SocketAddr,
) -> Destination<'a> {
    match snapshot.resolve(dialled) {
        Destination::Service(route) | Destination::Block(route)
            if route.external && !route.traffic.contains_key(client.namespace) =>
        {
            Destination::Outside
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use undermesh_model::Generation;

    use super::*;
    use crate::testing;

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot { generation: Generation(7), ..Snapshot::default() };
        let cart = Arc::new(testing::workload("cart-0", &["10.0.0.2", "fd00::2"]));
        testing::add_service(
            &mut snapshot,
            "10.96.0.1:80",
            vec![
                testing::endpoint("10.0.0.2:8080", Some(&cart)),
                testing::endpoint("10.0.0.3:8080", None),
            ],
        );
        testing::add_service(&mut snapshot, "10.96.0.2:80", Vec::new());
        for address in &cart.addresses {
            snapshot.workloads.insert(*address, Arc::clone(&cart));
        }
        snapshot
    }

    fn plan(dialled: &str) -> Plan {
        decide(&snapshot(), client(), dialled.parse().unwrap(), 3, |_| 0)
    }

    fn client() -> Dialler<'static> {
        Dialler { address: [10, 0, 0, 9].into(), namespace: "shop" }
    }

    #[test]
    fn a_service_leads_to_its_endpoints_and_each_keeps_its_own_transport() {
        let plan = plan("10.96.0.1:80");
        assert_eq!(plan.generation, 7);
        assert_eq!(plan.service.unwrap().port, 80);
        let meshed: Vec<_> = plan
            .targets
            .iter()
            .map(|target| (target.address.to_string(), target.workload.is_some()))
            .collect();
        assert_eq!(
            meshed,
            [("10.0.0.2:8080".to_owned(), true), ("10.0.0.3:8080".to_owned(), false)]
        );
    }

    #[test]
    fn a_service_port_without_endpoints_leads_nowhere() {
        assert_eq!(plan("10.96.0.2:80").targets, []);
    }

    #[test]
    fn an_enrolled_pod_is_dialled_at_the_port_that_was_asked_for() {
        for dialled in ["10.0.0.2:9000", "[fd00::2]:9000"] {
            let plan = plan(dialled);
            assert_eq!(plan.service, None);
            assert_eq!(plan.targets.len(), 1);
            assert_eq!(plan.targets[0].address, dialled.parse().unwrap());
            assert_eq!(plan.targets[0].workload.as_ref().unwrap().name.name, "cart-0");
        }
    }

    #[test]
    fn a_port_that_takes_only_plaintext_is_dialled_without_a_tunnel() {
        let mut snapshot = snapshot();
        let address = "10.0.0.2".parse().unwrap();
        let mut cart = (*snapshot.workloads[&address]).clone();
        cart.mtls.ports.insert(9000, MtlsMode::Disable);
        snapshot.workloads.insert(address, Arc::new(cart));
        for (dialled, wire) in [("10.0.0.2:9000", None), ("10.0.0.2:9001", Some(Wire::Hbone))] {
            let plan = decide(&snapshot, client(), dialled.parse().unwrap(), 3, |_| 0);
            assert_eq!(plan.targets[0].wire, wire, "{dialled}");
            assert!(plan.targets[0].workload.is_some());
        }
    }

    #[test]
    fn an_unknown_address_is_passed_on_as_it_is() {
        for dialled in ["192.0.2.1:443", "10.96.0.1:81"] {
            let plan = plan(dialled);
            assert_eq!(plan.targets.len(), 1);
            assert_eq!(plan.targets[0].address, dialled.parse().unwrap());
            assert_eq!(plan.targets[0].workload, None);
            assert!(!plan.unregistered);
        }
    }

    #[test]
    fn an_unknown_address_is_refused_where_only_registered_ones_may_be_dialled() {
        let mut snapshot = snapshot();
        snapshot.options.outbound_policy = OutboundPolicy::RegistryOnly;
        for (dialled, unregistered) in [
            ("192.0.2.1:443", true),
            ("10.96.0.1:80", false),
            ("10.96.0.2:80", false),
            ("10.0.0.2:9000", false),
        ] {
            let plan = decide(&snapshot, client(), dialled.parse().unwrap(), 3, |_| 0);
            assert_eq!(plan.unregistered, unregistered, "{dialled}");
        }
    }

    #[test]
    fn an_entry_that_is_not_for_the_client_is_any_address() {
        let mut snapshot = snapshot();
        let vip = "240.0.0.1:443".parse().unwrap();
        let endpoints = vec![testing::endpoint("192.0.2.9:443", None)];
        testing::add_service(&mut snapshot, "240.0.0.1:443", endpoints);
        let mut entry = (*snapshot.services[&vip]).clone();
        entry.external = true;
        snapshot.blocks.insert("192.0.2.0/24".parse().unwrap(), 443, Arc::new(entry.clone()));
        snapshot.services.insert(vip, Arc::new(entry));
        for dialled in ["240.0.0.1:443", "192.0.2.1:443"] {
            let plan = decide(&snapshot, client(), dialled.parse().unwrap(), 3, |_| 0);
            assert_eq!(plan.service, None);
            assert_eq!(plan.targets[0].address, dialled.parse().unwrap());
        }
    }
}
