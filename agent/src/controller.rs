//! `undermesh controller`: the control plane's process. It gives certificates to agents; of several replicas,
//! one at a time writes into the cluster.
//!
//! ```text
//! settings     what users may write, and what the controller works from
//! leader       which replica writes
//! authority    root and intermediate: from a Secret or a directory, and their successors
//! asked        what the certificate service asks the API server
//! distribution configuration for agents, in place of the API server
//! observed     the audit log and the metrics of certificates
//! webhook      judges objects before the API server takes them
//! statuses     writes what was found about objects into their status; `changes`, into the audit log
//! pages        readiness, status, metrics
//! dashboard    what a browser shows of all nodes
//! ```

mod asked;
mod authority;
mod changes;
mod dashboard;
mod distribution;
mod leader;
mod metrics;
mod observed;
mod pages;
mod settings;
mod statuses;
mod webhook;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use tokio::{net::TcpListener, runtime::Builder, sync::watch, task::JoinSet};
use undermesh_control::{ApiServer, Collector, Health, Hub, Timing};
use undermesh_identity::issuance::{self, Issuance, ServerIdentity, Services, Streams};
use undermesh_model::SpiffeId;
use undermesh_snapshot::Options;
use undermesh_telemetry::{Audit, LogFormat as TelemetryLogFormat};

use crate::{admin, agent::wait_for_signal, config::LogFormat, dashboard::Hosts, logging::Logging};
use asked::Kubernetes;
use authority::AuthorityKeeper;
use dashboard::Dashboard;
use distribution::{Distributed, Distribution};
use leader::Election;
use metrics::Metrics;
use observed::Observed;
use pages::Pages;
pub(crate) use settings::RawSettings;
use settings::Settings;
use statuses::StatusWriter;
use webhook::{Judge, Registration, Webhook};

/// How long open requests and the last lines of the audit log have when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(6);
const LAST_LINES: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct ControllerArgs {
    /// YAML file with any of the settings below, in camelCase (`grpcAddress`). A flag beats its
    /// environment variable, and that beats the file.
    #[arg(long, env = "UNDERMESH_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    #[command(flatten)]
    settings: Box<RawSettings>,
}

impl ControllerArgs {
    /// Runs the controller until it is told to stop.
    pub(crate) fn run(self) -> Result<ExitCode> {
        run(self.config.as_deref(), *self.settings)
    }
}

fn run(file: Option<&Path>, flags: RawSettings) -> Result<ExitCode> {
    let from_file = file.map(RawSettings::read).transpose()?.unwrap_or_default();
    let settings = flags.or(from_file).validate()?;
    let format = match settings.log_format {
        LogFormat::Text => TelemetryLogFormat::Text,
        LogFormat::Json => TelemetryLogFormat::Json,
    };
    let log = undermesh_telemetry::init_logs(&settings.log_level, format)?;
    let logging = Logging::new(log, &settings.log_level);
    let audit = Audit::start("controller", settings.audit.clone())
        .with_context(|| format!("cannot open auditLog {:?}", settings.audit))?;
    let runtime = Builder::new_multi_thread()
        .thread_name("controller")
        .enable_all()
        .build()
        .context("cannot start the controller's threads")?;
    let result = runtime.block_on(serve(settings, &audit, logging));
    runtime.shutdown_timeout(Duration::from_secs(1));
    if !audit.flush(LAST_LINES) {
        tracing::warn!("the last lines of the audit log were not written in time");
    }
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(settings: Settings, audit: &Audit, logging: Logging) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, replica = settings.replica, "starting the controller");
    let api = ApiServer::new(settings.kubeconfig.as_deref()).await.map_err(anyhow::Error::msg)?;
    let metrics = Metrics::new(audit);
    let stop = watch::Sender::new(false);

    let grpc = listen("grpcAddress", settings.grpc_address)?;
    let webhook_listener = listen("webhookAddress", settings.webhook_address)?;
    let metrics_listener = listen("metricsAddress", settings.metrics_address)?;
    let readiness = listen("readinessAddress", settings.readiness_address)?;
    let dashboard_listener = settings.dashboard_address.map(|it| listen("dashboardAddress", it));
    let dashboard_listener = dashboard_listener.transpose()?;

    let election = Election::new(api.clone(), &settings, audit.clone());
    let leadership = election.leadership();
    let (keeper, authority) =
        AuthorityKeeper::new(api.clone(), &settings, leadership.clone(), audit.clone())?;
    let tls = watch::Sender::new(None);
    let made = tls.subscribe();
    let identity = ServerIdentity {
        id: SpiffeId::new(
            settings.issuance.trust_domain.clone(),
            settings.namespace.clone(),
            "undermesh-controller",
        ),
        names: settings.server_names.clone(),
        lifetime: settings.issuance.lifetime,
    };
    let observed = Arc::new(Observed::new(audit.clone(), metrics.clone()));
    let cluster = Arc::new(Kubernetes::new(api.clone(), settings.audiences.clone()));
    let issuance =
        Arc::new(Issuance::new(settings.issuance.clone(), authority.clone(), cluster, observed));
    let pages = Arc::new(Pages::new(
        &settings,
        authority.clone(),
        made.clone(),
        leadership.clone(),
        metrics.clone(),
        stop.subscribe(),
    ));

    let webhook = Webhook {
        judge: Judge::new(
            api.clone(),
            settings.issuance.trust_domain.clone(),
            settings.root_namespace.clone(),
        ),
        audit: audit.clone(),
        metrics: metrics.clone(),
    };
    let registration = Registration {
        api: api.clone(),
        name: settings.webhook_name.clone(),
        authority: authority.clone(),
        leadership: leadership.clone(),
    };

    let statuses = settings.status_interval.map(|every| StatusWriter {
        api: api.clone(),
        options: Options {
            trust_domain: settings.issuance.trust_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..Options::default()
        },
        leadership: leadership.clone(),
        every,
        audit: audit.clone(),
        metrics: metrics.clone(),
    });

    let mut tasks = JoinSet::new();
    let mut streams: Option<Arc<dyn Streams>> = None;
    if settings.distribute {
        let distributed = Arc::new(Distributed::new(audit.clone(), metrics.clone()));
        let hub = Hub::new(Arc::clone(&distributed) as _);
        streams = Some(Arc::new(Distribution::new(hub.clone(), Arc::clone(&distributed))));
        let collector = Collector {
            kubeconfig: settings.kubeconfig.clone(),
            timing: Timing::default(),
            hub,
            health: Health::default(),
        };
        collector.start(stop.subscribe()).context("cannot follow the API server")?;
        tasks.spawn(async move { distributed.tell_in_time().await });
    }
    if let Some(listener) = dashboard_listener {
        let address = listener.local_addr()?;
        let is_own = address.ip().is_loopback();
        if !is_own {
            tracing::warn!(%address, "whoever gets here sees the dashboard: it has no authentication");
        }
        let dashboard = Dashboard::new(Arc::clone(&pages), is_own.then_some(logging));
        let dashboard = Arc::new(dashboard);
        let hosts = Hosts::new(address, &settings.dashboard_hosts);
        let answers = dashboard.answers();
        tasks.spawn(admin::serve_guarded(listener, answers, hosts, stop.subscribe()));
        tasks.spawn(dashboard.run(api, settings, stop.subscribe()));
    }
    if let Some(statuses) = statuses {
        tasks.spawn(statuses.run(stop.subscribe()));
    }
    let mut last = JoinSet::new();
    last.spawn(webhook.serve(webhook_listener, made.clone(), stop.subscribe()));
    tasks.spawn(registration.run(stop.subscribe()));
    tasks.spawn(admin::serve(metrics_listener, pages.metrics(), stop.subscribe()));
    tasks.spawn(admin::serve(readiness, pages.readiness(), stop.subscribe()));
    tasks.spawn(keeper.run(stop.subscribe()));
    tasks.spawn(identity.keep(authority, tls));
    let services = Services { issuance, streams };
    last.spawn(issuance::serve(grpc, made, services, stop.subscribe()));
    last.spawn(election.run(stop.subscribe()));

    wait_for_signal().await?;
    tracing::info!("stopping");
    stop.send_replace(true);
    // The lease is given back, so that another replica goes on at once, and who has asked is answered.
    let answered = async { while last.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, answered).await.is_err() {
        tracing::warn!(after = ?LAST_ANSWERS, "stopped with requests that were not answered");
    }
    tasks.abort_all();
    Ok(())
}

/// Opens a port, and says which: 0 stands for any.
fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener> {
    let listener = admin::listen(setting, address)?;
    tracing::info!(setting, address = %listener.local_addr()?, "listening");
    Ok(listener)
}
