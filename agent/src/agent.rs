//! The life of an agent: take over from a predecessor, serve, and stop or hand over.

mod control;
mod pages;
mod parts;
mod reload;
mod sources;

use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
use undermesh_telemetry::{LogFormat as TelemetryLogFormat, LogHandle, Telemetry};

use crate::{
    config::{Config, LogFormat, RawConfig},
    handover::{Door, Predecessor},
    overload,
    pod::{EnrolledPod, LAST_ACCEPTS},
};
use control::Control;
use parts::{Parts, Serving};
pub(crate) use reload::Warnings;

/// How long the end of the process waits for connections to be let go of, and again for their lines
/// to be written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long it waits for the last spans to be sent.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// Threads for configuration, certificates and admin. Connections have threads of their own.
const CONTROL_THREADS: usize = 2;
/// Sockets that a thread looks at in one go. A thread's queue holds 256 tasks: what goes beyond waits behind everything that comes
/// after it, and with a thousand busy connections some would wait ten times as long as others.
const EVENTS: usize = 128;
/// The same while it has other work.
const EVENTS_WHILE_BUSY: usize = 32;

/// Runs the agent until it is told to stop.
pub(crate) fn run(file: Option<&Path>, flags: RawConfig) -> Result<ExitCode> {
    let from_file = file.map(RawConfig::read).transpose()?.unwrap_or_default();
    let config = flags.or(from_file).validate()?;
    // Before there are other threads, which would stay behind.
    undermesh_datapath::join_host_cgroups()?;
    let format = match config.log_format {
        LogFormat::Text => TelemetryLogFormat::Text,
        LogFormat::Json => TelemetryLogFormat::Json,
    };
    let logs = undermesh_telemetry::init_logs(&config.log_level, format)?;
    let control = runtime("control", CONTROL_THREADS)?;
    let data = runtime("data", config.workers)?;
    let telemetry = parts::telemetry(&config)?;
    let result = control.block_on(serve(&config, logs, &telemetry, data.handle()));
    // Connections beyond the drain period end here, and their last lines are written.
    data.shutdown_timeout(LAST_LINES);
    let _ = telemetry.flush_access_log(LAST_LINES);
    let _ = telemetry.flush_audit(LAST_LINES);
    if telemetry.spans().is_some_and(|spans| !spans.close(LAST_SPANS)) {
        tracing::warn!("the last spans were not sent in time");
    }
    control.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

fn runtime(name: &'static str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .max_io_events_per_tick(EVENTS)
        .max_io_events_per_busy_tick(EVENTS_WHILE_BUSY)
        .enable_all()
        .build()
        .with_context(|| format!("cannot start the {name} threads"))
}

async fn serve(
    config: &Config,
    logs: LogHandle,
    telemetry: &Arc<Telemetry>,
    data: &Handle,
) -> Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.node, "starting");
    let predecessor = Predecessor::ask(&config.pin_dir).await?;
    let (parts, mut serving) = Parts::put_together(config, logs, telemetry, data)?;
    tokio::spawn(overload::watch(Arc::clone(&parts.proxy), config.overload));
    let mut control = Control::start(&parts, serving)?;
    if predecessor.is_some() || parts.is_beside_another_version() {
        parts.wait_until_serving().await;
        // Before the former agent closes listeners that its programs would still lead to.
        parts.replace_other_versions().await;
    }
    if let Some(predecessor) = predecessor {
        predecessor.taken().await?;
        tracing::info!("took over from the former agent");
    }
    parts.remove_other_versions();
    // Not before: who is told to stop while it starts ends at once.
    let mut signals = StopSignals::listen()?;
    loop {
        let door = Door::open(&config.pin_dir)?;
        let successor = tokio::select! {
            () = signals.next() => {
                drop(door);
                tracing::info!(drain_timeout = ?config.drain_timeout, "stopping; live connections may finish");
                serving = control.stop().await?;
                serving.enrolment.refuse_new();
                tokio::time::sleep(LAST_ACCEPTS).await;
                drain(serving.enrolment.into_draining(), config.drain_timeout).await;
                return Ok(());
            }
            successor = door.successor() => successor,
        };
        tracing::info!("another agent takes over");
        serving = control.stop().await?;
        drop(door);
        match successor.takes_over().await {
            Ok(()) => return hand_over(config, &parts, serving, signals).await,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "taking everything back");
                parts.take_back(&mut serving);
                control = Control::start(&parts, serving)?;
            }
        }
    }
}

/// The end of an agent that has a successor: nothing new arrives, and what is open may take its
/// time. A signal does not end it sooner: whoever replaces pods stops the old one as soon as the new
/// one is there.
async fn hand_over(
    config: &Config,
    parts: &Parts,
    serving: Serving,
    mut signals: StopSignals,
) -> Result<()> {
    parts.kernel_events.hand_over();
    // What was led to our listeners before the programs led it elsewhere is still to be accepted.
    tokio::time::sleep(LAST_ACCEPTS).await;
    let time = config.handover_timeout;
    tracing::info!(handover_timeout = ?time, "handed over; live connections may finish");
    let stopped = tokio::spawn(async move {
        signals.next().await;
        tracing::info!("told to stop; ends with the last connection");
    });
    tokio::select! {
        () = drain(serving.enrolment.into_draining(), time) => {}
        // Never ends before the connections do.
        () = async {
            reload::follow_policies(parts).await;
            std::future::pending::<()>().await;
        } => {}
    }
    if !config.handover_exit {
        tracing::info!("the last connection has ended; waiting to be stopped");
        stopped.await?;
    }
    Ok(())
}

/// Waits until every connection has ended, or time is up; programs and maps stay in place, so that
/// nothing falls back to plaintext until the next agent is there.
async fn drain(pods: Vec<EnrolledPod>, time: Duration) {
    let deadline = Instant::now() + time;
    for pod in pods {
        let left = deadline.saturating_duration_since(Instant::now());
        if !pod.drained(left).await {
            let name = &pod.workload().name;
            tracing::warn!(pod = %name, "connections are cut off by the end of the drain period");
        }
    }
}

/// What tells the process to stop. A signal that comes while nobody waits for it is not lost.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until the process is told to stop.
pub(crate) async fn wait_for_signal() -> Result<()> {
    StopSignals::listen()?.next().await;
    Ok(())
}
