//! Turns the programs' reports into access log lines: what happened to connections that no proxy
//! has seen.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use undermesh_datapath::{ConnectionEvent, EventKind, Reason};
use undermesh_proxy::{peer, service_label};
use undermesh_snapshot::{ConnectionAttributes, Destination, Snapshot, WorkloadInfo, evaluate};
use undermesh_telemetry::{
    CloseReason, ConnectionInfo, Denial, Peer, Reporter, Security, Telemetry, Transport,
};

use crate::enrolment::EnrolmentView;

/// Logs and counts reports.
pub(crate) struct KernelEvents {
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) enrolment: Arc<EnrolmentView>,
}

impl KernelEvents {
    pub(crate) fn handle(&self, event: &ConnectionEvent) {
        let info = self.info(event);
        match event.kind {
            EventKind::Local => self.telemetry.opened_in_kernel(&info),
            EventKind::Refused | EventKind::Dropped => {
                let mut reason = CloseReason::new(event.reason.as_str(), flags(event));
                if event.reason == Reason::PolicyDenied {
                    reason.detail = self.denying_policy(event);
                }
                self.telemetry.denied(&Denial { info, reason });
            }
        }
    }

    /// Which policy has refused a connection: the kernel knows verdicts, not names. Asked about
    /// the source as an identity first, since pods of this node are known to the kernel as such.
    fn denying_policy(&self, event: &ConnectionEvent) -> Option<String> {
        let snapshot = self.snapshot.load();
        let destination = snapshot.workloads.get(&event.destination.ip())?;
        let policy = snapshot.policies.get(&destination.name)?;
        let source_address = event.source?.ip();
        let source = snapshot.workloads.get(&source_address).filter(|source| source.local);
        let decide = |source| {
            let destination = event.destination;
            evaluate(policy, &ConnectionAttributes { source, source_address, destination })
        };
        let mut decision = decide(source.map(|source| &source.identity));
        if decision.allowed {
            decision = decide(None);
        }
        let by_address = "its policies look at client addresses, and this is plaintext".to_owned();
        Some(if decision.allowed { by_address } else { decision.to_string() })
    }

    fn info(&self, event: &ConnectionEvent) -> ConnectionInfo {
        let snapshot = self.snapshot.load();
        let by_address = |address: Option<SocketAddr>| {
            address.and_then(|address| snapshot.workloads.get(&address.ip()).cloned())
        };
        let source = match event.netns_cookie {
            Some(cookie) => self.enrolment.by_cookie(cookie),
            None => by_address(event.source),
        };
        let inbound = event.kind == EventKind::Dropped;
        let upstream = if inbound { Some(event.destination) } else { event.backend };
        let service = match snapshot.resolve(event.destination) {
            Destination::Service(route) => Some(service_label(route)),
            _ => None,
        };
        let known = |workload: Option<Arc<WorkloadInfo>>| {
            workload.map_or_else(Peer::unknown, |workload| peer(&workload))
        };
        ConnectionInfo {
            reporter: if inbound { Reporter::Destination } else { Reporter::Source },
            source: known(source.clone()),
            destination: known(by_address(upstream)),
            service,
            security: Security::None,
            transport: if inbound { Transport::Plain } else { Transport::Local },
            source_addr: event.source.unwrap_or_else(|| address_of(source.as_deref(), event)),
            dialled: (!inbound).then_some(event.destination),
            upstream,
            generation: snapshot.generation.0,
        }
    }
}

/// A refused connection has no port yet; its address is the pod's, of the destination's family.
fn address_of(source: Option<&WorkloadInfo>, event: &ConnectionEvent) -> SocketAddr {
    let v4 = event.destination.is_ipv4();
    let addresses = source.map(|workload| workload.addresses.as_slice()).unwrap_or_default();
    let own = addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    let unspecified = if v4 { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    SocketAddr::new(own.unwrap_or(unspecified), 0)
}

/// Istio's response flags: UH where there is no healthy upstream.
fn flags(event: &ConnectionEvent) -> &'static str {
    match event.reason {
        Reason::NoEndpoint => "UH",
        Reason::ProxyDown | Reason::TunnelDown => "UF",
        Reason::PolicyDenied => "UAEX",
        _ => "-",
    }
}
