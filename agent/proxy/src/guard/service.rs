//! Which service a judged connection is for. Its client's node knows what was dialled; here, it is told from who
//! stands behind the services.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use undermesh_snapshot::Snapshot;
use undermesh_telemetry::ServiceLabel;

use crate::record::service_label;

/// The services of one pod's ports, looked for once in each configuration.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    by_address: HashMap<SocketAddr, Option<ServiceLabel>>,
}

impl Services {
    /// The service that leads to this address of the pod; of several, the first by its name. Addresses are few: they
    /// are the pod's own, at ports where its application listens.
    pub(crate) fn of(&self, snapshot: &Snapshot, address: SocketAddr) -> Option<ServiceLabel> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != snapshot.generation.0 {
            *known = Known { generation: snapshot.generation.0, ..Known::default() };
        }
        known.by_address.entry(address).or_insert_with(|| find(snapshot, address)).clone()
    }
}

fn find(snapshot: &Snapshot, address: SocketAddr) -> Option<ServiceLabel> {
    let services = snapshot.services.values().filter(|route| !route.external);
    let leading =
        services.filter(|route| route.endpoints.iter().any(|endpoint| endpoint.address == address));
    leading.min_by(|one, other| one.host.cmp(&other.host)).map(|route| service_label(route))
}

#[cfg(test)]
mod tests {
    use undermesh_model::Generation;

    use super::*;
    use crate::testing;

    #[test]
    fn it_is_the_one_that_leads_there_as_long_as_it_does() {
        let services = Services::default();
        let mut snapshot = Snapshot::default();
        let endpoint = testing::endpoint("10.0.0.1:8080", None);
        testing::add_service(&mut snapshot, "10.96.0.1:80", vec![endpoint]);
        let of = |snapshot: &Snapshot, address: &str| {
            services.of(snapshot, address.parse().unwrap()).map(|service| service.name)
        };
        assert_eq!(of(&snapshot, "10.0.0.1:8080").as_deref(), Some("cart"));
        assert_eq!(of(&snapshot, "10.0.0.1:8081"), None);
        let snapshot = Snapshot { generation: Generation(2), ..Snapshot::default() };
        assert_eq!(of(&snapshot, "10.0.0.1:8080"), None);
    }
}
