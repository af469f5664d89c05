//! The agent: puts everything together, in the order in which one thing needs another.

mod pages;
mod reload;

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use undermesh_control::ManifestSource;
use undermesh_datapath::{CgroupRoot, Config as DatapathConfig, Datapath};
use undermesh_identity::{DirectoryAuthority, IdentityConfig, IdentityStore};
use undermesh_proxy::{PoolConfig, Proxy, ProxyConfig};
use undermesh_snapshot::{Options, Snapshot};
use undermesh_telemetry::{AccessLog, AccessLogSink, LogFormat as TelemetryLogFormat, Telemetry};

use crate::{
    admin,
    config::{AccessLogTarget, Config, LogFormat, RawConfig},
    enrolment::{Enrolment, EnrolmentView},
    kernel_events::KernelEvents,
    metrics::NodeCollector,
    pod::Node,
    readiness::Readiness,
};
use pages::Pages;
use reload::Reload;

/// Threads for configuration, certificates and admin. Connections have threads of their own.
const CONTROL_THREADS: usize = 2;

/// Runs the agent until it is told to stop.
pub(crate) fn run(file: Option<&Path>, flags: RawConfig) -> Result<ExitCode> {
    let from_file = file.map(RawConfig::read).transpose()?.unwrap_or_default();
    let config = flags.or(from_file).validate()?;
    let format = match config.log_format {
        LogFormat::Text => TelemetryLogFormat::Text,
        LogFormat::Json => TelemetryLogFormat::Json,
    };
    let logs = undermesh_telemetry::init_logs(&config.log_level, format)?;
    let control = runtime("control", CONTROL_THREADS)?;
    let data = runtime("data", config.workers)?;
    let result = control.block_on(serve(&config, logs, data.handle()));
    // Connections beyond the drain period end with the process.
    data.shutdown_background();
    control.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

async fn serve(config: &Config, logs: undermesh_telemetry::LogHandle, data: &Handle) -> Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.node, "starting");
    let started = Instant::now();
    let shutdown = watch::Sender::new(false);

    let admin_listener = admin::listen("adminAddress", config.admin_address)?;
    let metrics_listener = admin::listen("metricsAddress", config.metrics_address)?;
    let readiness_listener = admin::listen("readinessAddress", config.readiness_address)?;

    let telemetry = Telemetry::new(access_log(config)?);
    let identities = identities(config)?;
    let mut datapath = Datapath::load(&DatapathConfig {
        pin_dir: config.pin_dir.clone(),
        cgroup: config.cgroup.clone(),
        sizes: config.sizes,
        kernel_log: config.kernel_log,
    })?;
    tracing::info!(cgroup = %config.cgroup.display(), "eBPF programs attached");

    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let proxy = Proxy::new(
        proxy_config(config),
        Arc::clone(&snapshot),
        Arc::clone(&identities),
        Arc::clone(&telemetry),
        data.clone(),
    );
    let enrolment = Arc::new(EnrolmentView::default());
    let node = Arc::new(Node {
        proxy: Arc::clone(&proxy),
        programs: Mutex::new(datapath.take_pods().context("the pod programs are taken")?),
        original_dst: datapath.original_dst(),
        mark: datapath.mark(),
        cgroups: CgroupRoot::find()?,
        outbound_failure: config.outbound_failure,
    });
    let events = datapath.take_events().context("the event stream is taken")?;
    let local_tuples = datapath.local_tuples();
    let datapath = Arc::new(Mutex::new(datapath));
    telemetry.with_registry(|registry| {
        registry.register_collector(Box::new(NodeCollector {
            datapath: Arc::clone(&datapath),
            enrolment: Arc::clone(&enrolment),
            identities: Arc::clone(&identities),
        }));
    });

    let (snapshots, snapshot_updates) = watch::channel(None);
    let reload = Reload::new(
        Options {
            node: config.node.clone(),
            trust_domain: config.trust_domain.clone(),
            cluster: config.cluster.clone(),
            mtls: config.mtls,
            outbound_failure: config.outbound_failure,
        },
        Arc::clone(&datapath),
        Arc::clone(&identities),
        Arc::clone(&snapshot),
        Arc::clone(&telemetry),
        snapshots,
    );
    let warnings = reload.warnings();
    let pages = Arc::new(Pages {
        config: config.clone(),
        started,
        logs,
        readiness: Readiness {
            snapshots: snapshot_updates.clone(),
            enrolment: Arc::clone(&enrolment),
            identities: Arc::clone(&identities),
            shutdown: shutdown.subscribe(),
        },
        enrolment: Arc::clone(&enrolment),
        identities: Arc::clone(&identities),
        datapath,
        proxy: Arc::clone(&proxy),
        snapshot: Arc::clone(&snapshot),
        telemetry: Arc::clone(&telemetry),
        warnings,
    });

    tokio::spawn(admin::serve(admin_listener, pages.admin(), shutdown.subscribe()));
    tokio::spawn(admin::serve(metrics_listener, pages.metrics(), shutdown.subscribe()));
    tokio::spawn(admin::serve(readiness_listener, pages.readiness(), shutdown.subscribe()));
    tokio::spawn(Arc::clone(&identities).run(shutdown.subscribe()));
    let kernel_events = Arc::new(KernelEvents {
        telemetry,
        snapshot,
        enrolment: Arc::clone(&enrolment),
        local_tuples,
        open: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&kernel_events).sweep());
    tokio::spawn(async move {
        let ended = events.run(|event| kernel_events.handle(&event)).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the kernel's events are lost from now on");
        }
    });
    let updates = ManifestSource::new(&config.manifests).watch()?;
    tokio::spawn(reload.run(updates));
    let enrolling =
        tokio::spawn(Enrolment::new(node, enrolment).run(snapshot_updates, shutdown.subscribe()));

    wait_for_signal().await?;
    tracing::info!(drain_timeout = ?config.drain_timeout, "stopping; live connections may finish");
    shutdown.send_replace(true);
    let pods = enrolling.await.context("the enrolment task has failed")?;
    drain(config, pods).await;
    Ok(())
}

/// Waits until every connection has ended, or time is up; programs and maps stay in place, so that
/// nothing falls back to plaintext until the next agent is there.
async fn drain(config: &Config, pods: Vec<crate::pod::EnrolledPod>) {
    let deadline = Instant::now() + config.drain_timeout;
    for pod in pods {
        let left = deadline.saturating_duration_since(Instant::now());
        if !pod.drained(left).await {
            tracing::warn!(pod = %pod.workload().name, "connections are cut off by the end of the drain period");
        }
    }
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
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
    let authority = DirectoryAuthority::open(&config.ca_dir).with_context(|| {
        format!(
            "caDir {} is not usable; `undermesh ca init --dir DIR` makes one",
            config.ca_dir.display()
        )
    })?;
    let identity = IdentityConfig {
        trust_domain: config.trust_domain.clone(),
        lifetime: config.svid_lifetime,
        ..IdentityConfig::default()
    };
    Ok(IdentityStore::new(Arc::new(authority), identity)?)
}

fn proxy_config(config: &Config) -> ProxyConfig {
    let default = ProxyConfig::default();
    ProxyConfig {
        connect_timeout: config.connect_timeout,
        pool: PoolConfig { idle: config.tunnel_idle_timeout, ..default.pool },
        ..default
    }
}
