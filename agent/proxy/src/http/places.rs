//! Where the requests of one connection have gone: what telemetry says about each place is made once, and
//! not for each request.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use undermesh_snapshot::WorkloadInfo;
use undermesh_telemetry::{ConnectionInfo, Requests};

use super::neighbour;
use crate::{plan::Target, pod::Pod, record};

/// Places that are remembered; a connection whose requests go to more begins anew.
const MAX_PLACES: usize = 64;

/// The places of one connection.
pub(crate) struct Places {
    pod: Arc<Pod>,
    /// Number of the connection.
    connection: u64,
    /// For requests that go nowhere: the service that was dialled, and no endpoint.
    nowhere: Arc<Requests>,
    known: Mutex<Vec<(Place, Arc<Requests>)>>,
}

/// One place.
struct Place {
    host: String,
    endpoint: Option<(SocketAddr, Option<Arc<WorkloadInfo>>)>,
}

impl Places {
    /// Of a connection about which `info` is known.
    pub(crate) fn new(pod: &Arc<Pod>, info: ConnectionInfo) -> Self {
        let telemetry = &pod.shared.telemetry;
        let connection = telemetry.connection();
        let nowhere = telemetry.requests(connection, info);
        Self { pod: Arc::clone(pod), connection, nowhere, known: Mutex::default() }
    }

    /// Requests that are for nobody yet.
    pub(crate) fn nowhere(&self) -> &Arc<Requests> {
        &self.nowhere
    }

    /// Requests for the destination `host`, of which no endpoint is chosen yet.
    pub(crate) fn of(&self, host: &str) -> Arc<Requests> {
        let dialled = self.nowhere.info().service.as_ref();
        if dialled.is_some_and(|dialled| dialled.host == host) {
            return Arc::clone(&self.nowhere);
        }
        self.find(host, None)
    }

    /// Requests for an endpoint of the destination `host`.
    pub(crate) fn at(&self, host: &str, target: &Target) -> Arc<Requests> {
        self.find(host, Some(target))
    }

    fn find(&self, host: &str, target: Option<&Target>) -> Arc<Requests> {
        let mut known = self.lock();
        if let Some((_, requests)) = known.iter().find(|(place, _)| place.is(host, target)) {
            return Arc::clone(requests);
        }
        let workload = target.and_then(|target| target.workload.as_ref());
        let local = workload.is_some_and(|one| neighbour::local_pod(&self.pod, one).is_some());
        let info = record::requests(self.nowhere.info(), host, target, local);
        let requests = self.pod.shared.telemetry.requests(self.connection, info);
        if known.len() >= MAX_PLACES {
            known.clear();
        }
        let endpoint = target.map(|target| (target.address, target.workload.clone()));
        known.push((Place { host: host.to_owned(), endpoint }, Arc::clone(&requests)));
        requests
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Place, Arc<Requests>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn is(&self, host: &str, target: Option<&Target>) -> bool {
        let same = |one: &Arc<WorkloadInfo>, other: &Arc<WorkloadInfo>| Arc::ptr_eq(one, other);
        self.host == host
            && match (&self.endpoint, target) {
                (None, None) => true,
                (Some((address, known)), Some(target)) => {
                    *address == target.address
                        && match (known, &target.workload) {
                            (None, None) => true,
                            (Some(known), Some(workload)) => same(known, workload),
                            _ => false,
                        }
                }
                _ => false,
            }
    }
}
