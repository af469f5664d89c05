//! The tasks of a serving agent. They can be stopped as a whole, to make way for a successor, and
//! started again, should that fail.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    pages::Pages,
    parts::{Parts, Serving},
    reload::Reload,
    sources,
};
use crate::{admin, dashboard::Hosts, kubelet::Kubelet};

/// The running tasks.
pub(super) struct Control {
    stop: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    serving: JoinHandle<Serving>,
}

impl Control {
    /// Binds the ports and starts everything.
    pub(super) fn start(parts: &Parts, serving: Serving) -> Result<Self> {
        let config = &parts.config;
        let admin = admin::listen("adminAddress", config.admin_address)?;
        let metrics = admin::listen("metricsAddress", config.metrics_address)?;
        let readiness = admin::listen("readinessAddress", config.readiness_address)?;
        let hosts = Hosts::new(config.admin_address, &[]);
        let pages = Arc::new(Pages::new(parts));
        let reload = Reload::new(parts);
        let updates = sources::watch(config, &parts.health)?;

        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(admin::serve_guarded(admin, pages.admin(), hosts, stop.subscribe()));
        tasks.spawn(admin::serve(metrics, pages.metrics(), stop.subscribe()));
        tasks.spawn(admin::serve(readiness, pages.readiness(), stop.subscribe()));
        tasks.spawn(Arc::clone(&parts.identities).run(stop.subscribe()));
        tasks.spawn(Arc::clone(&parts.kernel_events).sweep(stop.subscribe()));
        let kubelet = Kubelet::new(config.kubelet_cgroup.clone(), Arc::clone(&parts.datapath));
        tasks.spawn(kubelet.run(stop.subscribe()));
        tasks.spawn(reload.run(updates, stop.subscribe()));
        let serving = tokio::spawn(serve(parts, serving, stop.subscribe()));
        parts.stopping.send_replace(false);
        Ok(Self { stop, stopping: parts.stopping.clone(), tasks, serving })
    }

    /// Stops everything but the proxy, and frees the ports.
    pub(super) async fn stop(mut self) -> Result<Serving> {
        self.stopping.send_replace(true);
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.serving.await.context("the serving task has failed")
    }
}

/// Enrols pods and reads the kernel's events until it is told to stop.
fn serve(
    parts: &Parts,
    mut serving: Serving,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = Serving> + use<> {
    let snapshots = parts.snapshots.subscribe();
    let kernel_events = Arc::clone(&parts.kernel_events);
    async move {
        let mut events_stop = stop.clone();
        let until = async move {
            let _ = events_stop.wait_for(|stop| *stop).await;
        };
        let (ended, ()) = tokio::join!(
            serving.events.run(|event| kernel_events.handle(&event), until),
            serving.enrolment.run(snapshots, stop),
        );
        if let Err(error) = ended {
            tracing::error!(%error, "the kernel's events are lost");
        }
        serving
    }
}
