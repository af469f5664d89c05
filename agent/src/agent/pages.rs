//! The pages of the admin, metrics and readiness servers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::{Method, StatusCode};
use serde_json::json;
use undermesh_control::Health;
use undermesh_datapath::Datapath;
use undermesh_identity::{CertificateStatus, IdentityStore};
use undermesh_model::Cluster;
use undermesh_proxy::{NameStatus, Proxy};
use undermesh_snapshot::{DatapathTables, Options, Snapshot, ip, socket};
use undermesh_telemetry::Telemetry;

use super::{parts::Parts, reload::Warnings};
use crate::{
    admin::{Answer, Pages as PageFn},
    analyze::Found,
    config::{Config, SourceConfig},
    dashboard, dump, edges,
    enrolment::EnrolmentView,
    explain, flows,
    logging::Logging,
    policies,
    policies::{AuthorizerRow, KeyRow},
    readiness::Readiness,
    status::{
        AgentStatus, CertificateRow, DestinationStatus, MapRow, ProgramRow, SourceStatus, Status,
    },
    trace,
};

/// Occupancy from which a map is worth a warning, in percent.
const FULL: u64 = 80;

const INDEX: &str = "\
GET  /status           what `undermesh status` shows, as JSON
GET  /findings         what is wrong with the configuration, as `undermesh analyze --live` asks for it
GET  /flows            recent flow records, as `undermesh flows` asks for them
GET  /edges            who has talked to whom, how often and how fast; as `undermesh top` asks for it
GET  /mesh             services, workloads, and policies with the pods that they are about
GET  /dashboard/       all this for a browser
GET  /explain          what would become of a connection, as `undermesh explain` asks for it
POST /trace            follows a connection, as `undermesh trace` asks for it; GET with its number
GET  /config_dump      the snapshot in force, the proxy's state, certificates without keys
GET  /maps?name=X      what stands in a BPF map, as `undermesh dump maps` asks for it
GET  /logging          the log filter; POST /logging?level=X[&for=5m] changes it
GET  /logs             the newest lines of the log
";

/// What the pages are made from.
pub(super) struct Pages {
    config: Config,
    started: Instant,
    logging: Logging,
    readiness: Readiness,
    enrolment: Arc<EnrolmentView>,
    identities: Arc<IdentityStore>,
    datapath: Arc<Mutex<Datapath>>,
    proxy: Arc<Proxy>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    warnings: Warnings,
    health: Health,
    /// The configuration in force, as it was read.
    cluster: Arc<ArcSwapOption<Cluster>>,
    /// A configuration, and what only shows when all of it is looked at.
    whole: Mutex<Option<(Arc<Cluster>, Vec<Found>)>>,
    options: Options,
    traces: Arc<trace::Sessions>,
}

impl Pages {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            started: parts.started,
            logging: parts.logging.clone(),
            readiness: parts.readiness(),
            enrolment: Arc::clone(&parts.enrolment),
            identities: Arc::clone(&parts.identities),
            datapath: Arc::clone(&parts.datapath),
            proxy: Arc::clone(&parts.proxy),
            snapshot: Arc::clone(&parts.snapshot),
            telemetry: Arc::clone(&parts.telemetry),
            warnings: parts.warnings.clone(),
            health: parts.health.clone(),
            cluster: Arc::clone(&parts.cluster),
            whole: Mutex::default(),
            options: parts.options(),
            traces: Arc::default(),
        }
    }

    pub(super) fn admin(self: &Arc<Self>) -> PageFn {
        let pages = Arc::clone(self);
        Arc::new(move |method, path, query| match (method, path) {
            (&Method::GET, "/") => Answer::text(StatusCode::OK, INDEX),
            (&Method::GET, "/status") => Answer::pretty(&pages.status()),
            (&Method::GET, "/config_dump") => Answer::pretty(&pages.dump()),
            (&Method::GET, "/findings") => {
                tokio::task::block_in_place(|| Answer::pretty(&pages.findings()))
            }
            (&Method::GET, "/edges") => edges::page(&pages.config.node, pages.telemetry.edges()),
            (&Method::GET, "/flows") => {
                flows::page(pages.telemetry.flows(), query, || pages.kernel_lost())
            }
            (&Method::GET, "/mesh") => Answer::pretty(&dashboard::Mesh::of(&pages.snapshot.load())),
            (&Method::GET, "/explain") => {
                // Another node's view of the configuration is compiled for it.
                tokio::task::block_in_place(|| explain::page(pages.mesh(), query))
            }
            (_, "/trace") => {
                tokio::task::block_in_place(|| trace::page(method, pages.tracing(), query))
            }
            (&Method::GET, "/maps") => dump::map_page(&pages.config.pin_dir, query),
            (_, "/logging" | "/logs") => pages.logging.page(method, path, query),
            _ => dashboard::page(method, path).unwrap_or_else(|| {
                Answer::text(StatusCode::NOT_FOUND, format!("no such page; there are\n{INDEX}"))
            }),
        })
    }

    pub(super) fn metrics(self: &Arc<Self>) -> PageFn {
        let pages = Arc::clone(self);
        Arc::new(move |method, path, _| match (method, path) {
            (&Method::GET, "/metrics" | "/stats/prometheus") => Answer {
                status: StatusCode::OK,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body: pages.telemetry.encode(),
            },
            // It says nothing that the metrics do not, and takes less to say it.
            (&Method::GET, "/edges") => edges::page(&pages.config.node, pages.telemetry.edges()),
            _ => {
                Answer::text(StatusCode::NOT_FOUND, "no such page; there are /metrics and /edges\n")
            }
        })
    }

    pub(super) fn readiness(self: &Arc<Self>) -> PageFn {
        let pages = Arc::clone(self);
        Arc::new(move |method, path, _| match (method, path) {
            (&Method::GET, "/healthz/ready") => {
                let missing = pages.readiness.missing();
                if missing.is_empty() {
                    Answer::text(StatusCode::OK, "ready\n")
                } else {
                    Answer::text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
                }
            }
            _ => Answer::text(StatusCode::NOT_FOUND, "no such page; there is /healthz/ready\n"),
        })
    }

    /// What is wrong with the configuration, and last what only shows when all of it is looked at: nobody has to be told
    /// that with each state.
    fn findings(&self) -> Vec<Found> {
        let mut findings = self.warnings.findings();
        let Some(cluster) = self.cluster.load_full() else { return findings };
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        // The dashboard asks every two seconds.
        if !whole.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, &cluster)) {
            let found = undermesh_control::whole(&cluster).iter().map(Found::from).collect();
            *whole = Some((cluster, found));
        }
        for found in whole.iter().flat_map(|(_, found)| found) {
            if !findings.contains(found) {
                findings.push(found.clone());
            }
        }
        findings
    }

    /// What explanations are about.
    fn mesh(&self) -> Option<explain::Mesh> {
        let own = self.snapshot.load_full();
        Some(explain::Mesh {
            cluster: self.cluster.load_full()?,
            options: self.options.clone(),
            generation: own.generation,
            own: Some(own),
            partial: matches!(self.config.source, SourceConfig::Controller { .. }),
            pods: self.proxy.status().pods,
            present: self.proxy.present(),
            findings: explain::said(&self.warnings.findings()),
            compiled: Default::default(),
        })
    }

    /// What traces are put together from.
    fn tracing(&self) -> Option<trace::Tracing> {
        let reader = self.datapath.lock().unwrap_or_else(PoisonError::into_inner).reader();
        let reader = reader.inspect_err(|error| tracing::warn!(%error, "no maps to trace with"));
        Some(trace::Tracing {
            sessions: Arc::clone(&self.traces),
            mesh: self.mesh()?,
            reader: reader.ok()?,
            enrolment: Arc::clone(&self.enrolment),
            proxy: Arc::clone(&self.proxy),
            telemetry: Arc::clone(&self.telemetry),
        })
    }

    fn status(&self) -> Status {
        let not_ready = self.readiness.missing();
        let proxy = self.proxy.status();
        let connections =
            proxy.pods.iter().map(|pod| pod.outbound_connections + pod.inbound_connections);
        let destinations = proxy.pods.iter().flat_map(DestinationStatus::of).collect();
        let tunnels = proxy.pods.iter().map(|pod| pod.pool.len() + pod.inbound_tunnels);
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        let maps = maps(&datapath);
        let mut warnings = self.warnings.list();
        warnings.extend(self.identities.certificates().iter().filter_map(overdue));
        warnings.extend(proxy.names.iter().filter_map(unanswered));
        warnings.extend(maps.iter().filter(|map| map.percent >= FULL).map(filling));
        let snapshot = self.snapshot.load();
        let asked = (proxy.authorizers.as_slice(), proxy.keys.as_slice());
        Status {
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node: self.config.node.clone(),
                pid: std::process::id(),
                uptime_seconds: self.started.elapsed().as_secs(),
                generation: snapshot.generation.0,
                ready: not_ready.is_empty(),
                not_ready,
                connections: connections.sum::<usize>() as u64,
                tunnels: tunnels.sum::<usize>() as u64,
                overload: proxy.overload.into(),
            },
            source: SourceStatus::new(&self.config.source, self.health.report()),
            pods: self.enrolment.pods(),
            gate: self.enrolment.gate(),
            destinations,
            certificates: self.certificates(),
            policies: policies::rows(&snapshot, asked, &self.warnings),
            authorizers: proxy.authorizers.iter().map(AuthorizerRow::of).collect(),
            token_keys: proxy.keys.iter().map(KeyRow::of).collect(),
            programs: programs(&datapath),
            maps,
            verdicts: verdicts(&datapath),
            warnings,
        }
    }

    /// Reports of the programs that were lost because the agent did not read them in time.
    fn kernel_lost(&self) -> u64 {
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = datapath.verdicts().unwrap_or_default();
        counts.iter().filter(|(it, _)| it.as_str() == "event_lost").map(|(_, count)| count).sum()
    }

    fn certificates(&self) -> Vec<CertificateRow> {
        let rows = self.identities.certificates().into_iter().map(|status| CertificateRow {
            id: status.id.to_string(),
            serial: status.serial,
            not_before: status.not_before,
            not_after: status.not_after,
            expires_in_seconds: status.expires_in_seconds,
            life_percent: status.life_percent,
            last_error: status.last_error.unwrap_or_default(),
        });
        rows.collect()
    }

    fn dump(&self) -> serde_json::Value {
        let snapshot = self.snapshot.load();
        let services: BTreeMap<String, _> =
            snapshot.services.iter().map(|(vip, route)| (vip.to_string(), route)).collect();
        let workloads: BTreeMap<String, _> =
            snapshot.workloads.iter().map(|(ip, workload)| (ip.to_string(), workload)).collect();
        let blocks: BTreeMap<String, _> = snapshot
            .blocks
            .iter()
            .map(|(block, port, route)| (format!("{block} port {port}"), route))
            .collect();
        json!({
            "generation": snapshot.generation,
            "workloads": workloads,
            "services": services,
            "blocks": blocks,
            "routes": dump::PortRoutes::of(&snapshot),
            "tables": tables(&snapshot.tables),
            "proxy": self.proxy.status(),
            "certificates": self.certificates(),
            "trustedRoots": self.identities.root_count(),
        })
    }
}

fn programs(datapath: &Datapath) -> Vec<ProgramRow> {
    let rows = datapath.programs().into_iter().map(|program| ProgramRow {
        name: program.name.to_owned(),
        hook: program.hook.to_owned(),
        program_id: program.program_id,
        attached_to: program.attached_to,
        attached: program.attached,
    });
    rows.collect()
}

fn maps(datapath: &Datapath) -> Vec<MapRow> {
    let found = datapath.maps().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look at the maps");
        Vec::new()
    });
    let rows = found.into_iter().map(|map| MapRow {
        name: map.name.to_owned(),
        entries: map.entries,
        max_entries: map.max_entries,
        percent: map.percent(),
        setting: map.setting().to_owned(),
    });
    rows.collect()
}

fn unanswered(name: &NameStatus) -> Option<String> {
    let NameStatus { name, error, .. } = name;
    error.as_ref().map(|error| {
        format!("DNS does not answer for {name}: {error}; what it said last stays in force")
    })
}

/// A certificate that nobody renews.
fn overdue(status: &CertificateStatus) -> Option<String> {
    if !status.is_overdue(50) {
        return None;
    }
    let (id, error) = (&status.id, status.last_error.as_deref().unwrap_or_default());
    let percent = status.life_percent.unwrap_or_default();
    let ends = match percent {
        100.. => "; it HAS EXPIRED",
        80.. => "; it ENDS SOON",
        _ => "",
    };
    Some(format!(
        "the certificate of {id} cannot be renewed, {percent}% of its life is over{ends}: {error}"
    ))
}

fn filling(map: &MapRow) -> String {
    let MapRow { name, percent, setting, .. } = map;
    let remedy = "and restart the agent after `undermesh cleanup`";
    format!("map {name} is {percent}% full; raise `{setting}` {remedy}")
}

fn verdicts(datapath: &Datapath) -> BTreeMap<String, u64> {
    let found = datapath.verdicts().unwrap_or_default().into_iter();
    found
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.as_str().to_owned(), count))
        .collect()
}

/// The desired content of the maps, in words.
fn tables(tables: &DatapathTables) -> serde_json::Value {
    let backends: Vec<String> = tables
        .backends
        .iter()
        .map(|(key, backend)| {
            let vip = socket(key.service.addr, key.service.port_be);
            let to = socket(backend.addr, backend.port_be);
            format!("{vip} #{} -> {to} flags {}", key.slot, backend.flags)
        })
        .collect();
    let workloads: Vec<String> = tables
        .workloads
        .iter()
        .map(|(addr, entry)| {
            format!("{} flags {} policy {:016x}", ip(*addr), entry.flags, entry.policy)
        })
        .collect();
    json!({
        "backends": backends,
        "workloads": workloads,
        "policyEntries": tables.policy.len(),
        "strictUnknown": tables.strict_unknown,
    })
}
