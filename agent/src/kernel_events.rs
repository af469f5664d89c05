//! Turns the programs' reports into access log lines: what happened to connections that no proxy
//! has seen.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use undermesh_datapath::{ConnectionEvent, EventKind, LocalTupleTable, Reason};
use undermesh_model::SpiffeId;
use undermesh_proxy::{Proxy, peer, service_label};
use undermesh_snapshot::{
    CompiledPolicy, ConnectionAttributes, Destination, Snapshot, WorkloadInfo, evaluate,
};
use undermesh_telemetry::{
    CloseReason, ConnectionInfo, ConnectionRecord, Denial, Peer, Reporter, Security, Telemetry,
    Transport,
};

use crate::enrolment::EnrolmentView;

/// Local connections that are remembered between their two reports; what is beyond is logged when
/// it opens, and its bytes are not counted.
const MAX_OPEN: usize = 131_072;
/// How often it is looked whether a report of an end was lost.
const SWEEP: Duration = Duration::from_secs(30);

/// Logs and counts reports.
pub(crate) struct KernelEvents {
    telemetry: Arc<Telemetry>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    proxy: Arc<Proxy>,
    enrolment: Arc<EnrolmentView>,
    local_tuples: LocalTupleTable,
    open: Mutex<HashMap<u64, OpenConnection>>,
}

/// A local connection between its two reports.
struct OpenConnection {
    record: ConnectionRecord,
    source: SocketAddr,
    backend: SocketAddr,
    since: Instant,
    /// Why the agent has ended it, if it has.
    ended_because: Option<CloseReason>,
}

impl KernelEvents {
    pub(crate) fn new(
        telemetry: Arc<Telemetry>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        proxy: Arc<Proxy>,
        enrolment: Arc<EnrolmentView>,
        local_tuples: LocalTupleTable,
    ) -> Self {
        Self { telemetry, snapshot, proxy, enrolment, local_tuples, open: Mutex::default() }
    }

    /// Forgets the open connections: the next agent hears of their ends.
    pub(crate) fn hand_over(&self) {
        for (_, open) in self.lock().drain() {
            open.record.hand_over();
        }
    }

    pub(crate) fn handle(&self, event: &ConnectionEvent) {
        match event.kind {
            EventKind::Local => self.opened(event),
            EventKind::LocalClosed => self.closed(event),
            EventKind::Listening => {
                if let Some(cookie) = event.netns_cookie {
                    self.enrolment.listening_changed(cookie);
                }
            }
            EventKind::GatedOpen => self.enrolment.came_to_the_gate(),
            EventKind::Refused | EventKind::Dropped => {
                if event.reason == Reason::Gated {
                    self.enrolment.came_to_the_gate();
                }
                let mut reason = CloseReason::new(event.reason.as_str(), flags(event));
                if event.reason == Reason::PolicyDenied {
                    reason.detail = self.denying_policy(event);
                }
                self.telemetry.denied(&Denial { info: self.info(event), reason });
            }
        }
    }

    /// Which policy has refused a connection: the kernel knows verdicts, not names.
    fn denying_policy(&self, event: &ConnectionEvent) -> Option<String> {
        let snapshot = self.snapshot.load();
        let policy = policy_at(&snapshot, event.destination)?;
        let source = event.source?;
        let known = pod_at(&snapshot, source);
        // Pods of this node are known to the kernel by identity; all others are nobody.
        let candidates = [known.map(|known| &known.identity), None];
        let denied = candidates
            .into_iter()
            .map(|identity| attributes(identity, source, event.destination))
            .find(|connection| !evaluate(policy, connection).allowed);
        // Nothing, where the policy has changed meanwhile.
        Some(self.proxy.count_policy(policy, &denied?))
    }

    /// What AUDIT policies and dry runs have to say about a connection that the kernel let pass.
    fn report_findings(&self, source: SocketAddr, backend: SocketAddr) {
        let snapshot = self.snapshot.load();
        let (Some(policy), Some(known)) =
            (policy_at(&snapshot, backend), pod_at(&snapshot, source))
        else {
            return;
        };
        let connection = attributes(Some(&known.identity), source, backend);
        if evaluate(policy, &connection).allowed {
            self.proxy.count_policy(policy, &connection);
        }
    }

    fn opened(&self, event: &ConnectionEvent) {
        let record = self.telemetry.open(self.info(event));
        let (Some(source), Some(backend)) = (event.source, event.backend) else { return };
        self.report_findings(source, backend);
        let mut open = self.lock();
        if open.len() < MAX_OPEN {
            let since = Instant::now();
            let ended_because = None;
            let opened = OpenConnection { record, source, backend, since, ended_because };
            open.insert(event.socket_cookie, opened);
        } else {
            drop(open);
            record.close(CloseReason::new("not_followed", "-"));
        }
    }

    /// A connection that was opened under a former agent has no record: it gets one now, so that
    /// its bytes are counted and its end is logged.
    fn closed(&self, event: &ConnectionEvent) {
        let known = self.lock().remove(&event.socket_cookie);
        let (record, because) = match known {
            Some(open) => (open.record, open.ended_because),
            None => (self.telemetry.resume(self.info(event), event.traffic.duration), None),
        };
        record.counters().add_received(event.traffic.received);
        record.counters().add_sent(event.traffic.sent);
        let round_trip = format!("round trip {} us", event.traffic.round_trip.as_micros());
        let because = because.unwrap_or_else(|| {
            CloseReason::new(event.reason.as_str(), flags(event)).with_detail(round_trip)
        });
        record.close(because);
    }

    /// Says why a connection between two pods of this node is about to end.
    pub(crate) fn will_end(&self, source: SocketAddr, backend: SocketAddr, because: CloseReason) {
        let mut open = self.lock();
        let meant = open.values_mut().find(|one| one.source == source && one.backend == backend);
        if let Some(meant) = meant {
            meant.ended_because = Some(because);
        }
    }

    /// Closes the records of connections that the kernel no longer has: the report of their end
    /// was lost to a full buffer.
    pub(crate) async fn sweep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let gone: Vec<OpenConnection> = self
                .lock()
                .extract_if(|_, open| {
                    open.since.elapsed() >= SWEEP
                        && !self.local_tuples.contains(open.source, open.backend)
                })
                .map(|(_, open)| open)
                .collect();
            for open in gone {
                open.record.close(CloseReason::new("closed_unseen", "-"));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, OpenConnection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self, event: &ConnectionEvent) -> ConnectionInfo {
        let snapshot = self.snapshot.load();
        let by_address = |address: Option<SocketAddr>| {
            address.and_then(|address| snapshot.workloads.get(&address.ip()).cloned())
        };
        let source = match event.netns_cookie {
            Some(cookie) => self
                .enrolment
                .by_cookie(cookie)
                .or_else(|| self.enrolment.held(cookie, event.cgroup)),
            None => by_address(event.source),
        };
        let inbound = event.kind == EventKind::Dropped;
        let upstream = if inbound { Some(event.destination) } else { event.backend };
        let service = match snapshot.resolve(event.destination) {
            Destination::Service(route) => Some(service_label(route)),
            // A block is about many hosts, and only the agent knows which one was meant.
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

fn policy_at(snapshot: &Snapshot, destination: SocketAddr) -> Option<&CompiledPolicy> {
    let workload = snapshot.workloads.get(&destination.ip())?;
    snapshot.policies.get(&workload.name).map(AsRef::as_ref)
}

fn pod_at(snapshot: &Snapshot, source: SocketAddr) -> Option<&WorkloadInfo> {
    let known = snapshot.workloads.get(&source.ip()).filter(|known| known.local);
    known.map(AsRef::as_ref)
}

fn attributes(
    source: Option<&SpiffeId>,
    from: SocketAddr,
    destination: SocketAddr,
) -> ConnectionAttributes<'_> {
    ConnectionAttributes { source, source_address: from.ip(), destination }
}

/// A refused connection has no port yet; its address is the pod's, of the destination's family.
fn address_of(source: Option<&WorkloadInfo>, event: &ConnectionEvent) -> SocketAddr {
    let v4 = event.destination.is_ipv4();
    let addresses = source.map(|workload| workload.addresses.as_slice()).unwrap_or_default();
    let own = addresses.iter().find(|address| address.is_ipv4() == v4).copied();
    let unspecified = if v4 { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    SocketAddr::new(own.unwrap_or(unspecified), 0)
}

/// Istio's response flags: UH where there is no healthy upstream, NR where there is no route.
fn flags(event: &ConnectionEvent) -> &'static str {
    match event.reason {
        Reason::NoEndpoint => "UH",
        Reason::NotRegistered => "NR",
        Reason::ProxyDown | Reason::TunnelDown | Reason::LocalFailed => "UF",
        Reason::PolicyDenied => "UAEX",
        _ => "-",
    }
}
