//! The agent's parts, put together in the order in which one thing needs another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{runtime::Handle, sync::watch};
use undermesh_control::Health;
use undermesh_datapath::{CgroupRoot, Config as DatapathConfig, Datapath, DatapathError, Events};
use undermesh_identity::{
    CertificateAuthority, DirectoryAuthority, IdentityConfig, IdentityStore, RemoteAuthority,
};
use undermesh_model::Cluster;
use undermesh_proxy::{PoolConfig, Proxy, ProxyConfig};
use undermesh_snapshot::{Options, Snapshot};
use undermesh_telemetry::{AccessLog, AccessLogSink, Audit, AuditSink, LogHandle, Telemetry};

use super::reload::Warnings;
use crate::{
    allocator,
    config::{AccessLogTarget, Config, SourceConfig},
    discovery::Discovery,
    enrolment::{Enrolment, EnrolmentView},
    gate::Gatekeeper,
    kernel_events::KernelEvents,
    logging::Logging,
    metrics::{NodeCollector, SourceCollector},
    pod::Node,
    readiness::Readiness,
    rejudge::Rejudge,
    sockets::Neighbours,
    spans,
};

/// How long a new agent waits for its pods before it tells its predecessor to go all the same.
const SERVING_WITHIN: Duration = Duration::from_secs(60);
/// How long a `connect` may be on its way from one program to the next: both run in one system call,
/// but a busy machine may let its thread wait in between.
const IN_FLIGHT: Duration = Duration::from_millis(50);

/// What exists once, for the life of the process.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) started: Instant,
    pub(super) logging: Logging,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) identities: Arc<IdentityStore>,
    pub(super) datapath: Arc<Mutex<Datapath>>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// What the snapshot was compiled from; its source keeps it as well.
    pub(super) cluster: Arc<ArcSwapOption<Cluster>>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) enrolment: Arc<EnrolmentView>,
    pub(super) kernel_events: Arc<KernelEvents>,
    pub(super) rejudge: Arc<Rejudge>,
    pub(super) warnings: Warnings,
    /// How the source is, where that is an API server.
    pub(super) health: Health,
    pub(super) stopping: watch::Sender<bool>,
}

/// What the tasks work on; it outlives them, as they stop and start again.
pub(super) struct Serving {
    pub(super) enrolment: Enrolment,
    pub(super) events: Events,
}

impl Parts {
    /// Puts everything together; nothing runs yet.
    pub(super) fn put_together(
        config: &Config,
        logs: LogHandle,
        telemetry: &Arc<Telemetry>,
        data: &Handle,
    ) -> Result<(Self, Serving)> {
        let identities = identities(config)?;
        let mut datapath = Datapath::load(&DatapathConfig {
            pin_dir: config.pin_dir.clone(),
            cgroup: config.cgroup.clone(),
            sizes: config.sizes,
            kernel_log: config.kernel_log,
        })?;
        tracing::info!(cgroup = %config.cgroup.display(), "eBPF programs attached");
        // Types of the whole kernel were read to load a few programs, 25 MiB of them.
        allocator::give_back();
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        if let Some(tracing) = &config.tracing {
            spans::start(tracing, &snapshot, telemetry)?;
        }
        let proxy = Proxy::new(
            proxy_config(config),
            Arc::clone(&snapshot),
            Arc::clone(&identities),
            Arc::clone(telemetry),
            data.clone(),
        );
        let enrolment = Arc::new(EnrolmentView::default());
        let node = Arc::new(Node {
            proxy: Arc::clone(&proxy),
            programs: Mutex::new(datapath.take_pods().context("the pod programs are taken")?),
            original_dst: datapath.original_dst(),
            neighbours: Neighbours {
                local_tuples: datapath.local_tuples(),
                enrolment: Arc::clone(&enrolment),
            },
            mark: datapath.mark(),
            deliveries: datapath.deliveries(),
            return_routes: Mutex::new(datapath.return_routes()),
            connect_timeout: config.connect_timeout,
            cgroups: CgroupRoot::find()?,
            pods: config.gate.pods.clone(),
            outbound_policy: config.outbound_policy,
            reports_listeners: datapath.reports_listeners(),
        });
        let discovery = discovery(&node.cgroups, config)?;
        let gate = datapath.take_gate().context("the startup gate is taken")?;
        let gate = Gatekeeper::new(config.gate.clone(), node.cgroups.clone(), gate);
        let events = datapath.take_events().context("the event stream is taken")?;
        let kernel_events = Arc::new(KernelEvents::new(
            Arc::clone(telemetry),
            Arc::clone(&snapshot),
            Arc::clone(&proxy),
            Arc::clone(&enrolment),
            datapath.local_tuples(),
        ));
        let rejudge = Arc::new(Rejudge::new(
            Arc::clone(&enrolment),
            datapath.local_tuples(),
            Arc::clone(&kernel_events),
            Arc::clone(&proxy),
            Arc::clone(telemetry),
        ));
        let datapath = Arc::new(Mutex::new(datapath));
        let (warnings, health) = (Warnings::default(), Health::default());
        telemetry.with_registry(|registry| {
            registry.register_collector(Box::new(NodeCollector {
                datapath: Arc::clone(&datapath),
                enrolment: Arc::clone(&enrolment),
                identities: Arc::clone(&identities),
                snapshot: Arc::clone(&snapshot),
                proxy: Arc::clone(&proxy),
                warnings: warnings.clone(),
            }));
            if !matches!(config.source, SourceConfig::Manifests(_)) {
                registry.register_collector(Box::new(SourceCollector(health.clone())));
            }
        });
        let enrolment_task = Enrolment::new(node, Arc::clone(&enrolment), discovery, gate);
        let serving = Serving { enrolment: enrolment_task, events };
        let parts = Self {
            config: config.clone(),
            started: Instant::now(),
            logging: Logging::new(logs, &config.log_level),
            telemetry: Arc::clone(telemetry),
            identities,
            datapath,
            snapshot,
            snapshots: watch::Sender::new(None),
            cluster: Arc::default(),
            proxy,
            enrolment,
            kernel_events,
            rejudge,
            warnings,
            health,
            stopping: watch::Sender::new(false),
        };
        Ok((parts, serving))
    }

    /// What the snapshot compiler needs to know of this node.
    pub(super) fn options(&self) -> Options {
        Options {
            node: self.config.node.clone(),
            trust_domain: self.config.trust_domain.clone(),
            cluster: self.config.cluster.clone(),
            mtls: self.config.mtls,
            root_namespace: self.config.root_namespace.clone(),
            outbound_failure: self.config.outbound_failure,
            same_node: self.config.same_node,
            source_address: self.config.source_address,
            outbound_policy: self.config.outbound_policy,
        }
    }

    /// The conditions of readiness.
    pub(super) fn readiness(&self) -> Readiness {
        Readiness {
            snapshots: self.snapshots.subscribe(),
            enrolment: Arc::clone(&self.enrolment),
            identities: Arc::clone(&self.identities),
            shutdown: self.stopping.subscribe(),
        }
    }

    /// Waits until this agent could do without its predecessor. A pod that cannot be enrolled
    /// must not keep two agents running for ever.
    pub(super) async fn wait_until_serving(&self) {
        let readiness = self.readiness();
        let deadline = Instant::now() + SERVING_WITHIN;
        loop {
            let missing = readiness.missing();
            if missing.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(?missing, "taking over although not everything is in place");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether programs of another version are in place, with their agent or without.
    pub(super) fn is_beside_another_version(&self) -> bool {
        self.lock().is_beside_another_version()
    }

    /// Leads everything by this version's programs alone. Those of another version judge what arrives
    /// until then; connections that they have led are given the time to get where they go.
    pub(super) async fn replace_other_versions(&self) {
        match self.lock().silence_other_versions() {
            Ok(0) => return,
            Ok(links) => tracing::info!(links, "the programs of another version lead nothing more"),
            Err(error) => tracing::error!(%error, "the programs of another version stay in place"),
        }
        tokio::time::sleep(IN_FLIGHT).await;
    }

    /// Removes what an agent of another ABI version has left.
    pub(super) fn remove_other_versions(&self) {
        match self.lock().remove_other_versions() {
            Ok(report) if report.links + report.maps > 0 => {
                let (links, maps) = (report.links, report.maps);
                tracing::info!(links, maps, "removed the programs of another version");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot remove the programs of another version"),
        }
    }

    /// Makes the maps this agent's own again, after a successor has failed.
    pub(super) fn take_back(&self, serving: &mut Serving) {
        if let Err(error) = self.lock().read_again() {
            tracing::error!(%error, "cannot read the maps again");
        }
        serving.enrolment.assert_again();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Datapath> {
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where only a part of the cgroup hierarchy is mounted, as in clusters that run in containers, programs cannot
/// tell which cgroup is a pod's: pods are found all the same, but nothing holds them until they are.
fn discovery(cgroups: &CgroupRoot, config: &Config) -> Result<Discovery> {
    match Discovery::open(cgroups, config.gate.pods.as_ref()) {
        Err(error @ DatapathError::PartOfTheHierarchy(_)) if !config.gate.explicit => {
            tracing::warn!(%error, "there is no startup gate");
            Ok(Discovery::open(cgroups, None)?)
        }
        opened => Ok(opened?),
    }
}

/// The metrics and the access log.
pub(super) fn telemetry(config: &Config) -> Result<Arc<Telemetry>> {
    let telemetry = Telemetry::with_flows(access_log(config)?, config.flow_buffer);
    if !matches!(config.audit, AuditSink::Off) {
        let audit = Audit::start("agent", config.audit.clone())
            .with_context(|| format!("cannot open auditLog {:?}", config.audit))?;
        telemetry.audit_denials(audit);
    }
    Ok(telemetry)
}

fn access_log(config: &Config) -> Result<AccessLog> {
    let sink = match &config.access_log {
        AccessLogTarget::Stdout => AccessLogSink::Stdout,
        AccessLogTarget::Off => AccessLogSink::Off,
        AccessLogTarget::File(path) => AccessLogSink::File(path.clone()),
    };
    AccessLog::start(sink).with_context(|| format!("cannot open accessLog {:?}", config.access_log))
}

fn identities(config: &Config) -> Result<Arc<IdentityStore>> {
    let authority: Arc<dyn CertificateAuthority> = match &config.ca_remote {
        Some(remote) => {
            let authority = RemoteAuthority::new(remote.clone()).context("caAddress")?;
            Arc::new(authority)
        }
        None => Arc::new(DirectoryAuthority::open(&config.ca_dir).with_context(|| {
            format!(
                "caDir {} is not usable; `undermesh ca init --dir DIR` makes one",
                config.ca_dir.display()
            )
        })?),
    };
    let identity = IdentityConfig {
        trust_domain: config.trust_domain.clone(),
        lifetime: config.svid_lifetime,
        ..IdentityConfig::default()
    };
    Ok(IdentityStore::new(authority, identity)?)
}

fn proxy_config(config: &Config) -> ProxyConfig {
    let default = ProxyConfig::default();
    ProxyConfig {
        connect_timeout: config.connect_timeout,
        native: config.native,
        body_idle_timeout: config.body_idle_timeout,
        head: config.head,
        body_min_rate: config.body_min_rate,
        body_rate_window: config.body_rate_window,
        http_idle_timeout: config.http_idle_timeout,
        http2_idle_timeout: config.http2_idle_timeout,
        fairness: config.fairness,
        dns_servers: config.dns_servers.clone(),
        tracing: config.tracing.as_ref().map(|tracing| tracing.proxy.clone()),
        pool: PoolConfig { idle: config.tunnel_idle_timeout, ..default.pool },
        ..default
    }
}
