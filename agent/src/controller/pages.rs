//! The controller's pages: readiness that is true, what it is doing, and its metrics.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use undermesh_identity::{CaCertificate, issuance::ServerTls, spent_percent};

use super::{authority::Authority, leader::Leadership, metrics::Metrics, settings::Settings};
use crate::admin::{Answer, Pages as Answers};

pub(super) struct Pages {
    replica: String,
    authority: Authority,
    tls: watch::Receiver<Option<Arc<ServerTls>>>,
    leadership: Leadership,
    metrics: Metrics,
    stopping: watch::Receiver<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    replica: String,
    leads: bool,
    ready: bool,
    not_ready: Vec<String>,
    issuer: Option<CaCertificate>,
    issuer_life_percent: Option<i64>,
    roots: usize,
}

impl Pages {
    pub(super) fn new(
        settings: &Settings,
        authority: Authority,
        tls: watch::Receiver<Option<Arc<ServerTls>>>,
        leadership: Leadership,
        metrics: Metrics,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let replica = settings.replica.clone();
        Self { replica, authority, tls, leadership, metrics, stopping }
    }

    pub(super) fn metrics(self: &Arc<Self>) -> Answers {
        let pages = Arc::clone(self);
        Arc::new(move |method, path, _| match (method, path) {
            (&Method::GET, "/metrics") => {
                let leads = pages.leadership.is_held();
                let body = pages.metrics.encode(leads, pages.issuer_expires());
                let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                Answer { status: StatusCode::OK, content_type, body }
            }
            (&Method::GET, "/status") => Answer::of(&pages.status()),
            _ => Answer::text(StatusCode::NOT_FOUND, "there are /metrics and /status\n"),
        })
    }

    pub(super) fn readiness(self: &Arc<Self>) -> Answers {
        let pages = Arc::clone(self);
        Arc::new(move |method, path, _| match (method, path) {
            (&Method::GET, "/healthz/ready") => match pages.missing() {
                missing if missing.is_empty() => Answer::text(StatusCode::OK, "ready\n"),
                missing => Answer::text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
            },
            (&Method::GET, "/healthz/live") => Answer::text(StatusCode::OK, "alive\n"),
            _ => Answer::text(StatusCode::NOT_FOUND, "there is /healthz/ready\n"),
        })
    }

    /// A replica that does not lead is as ready as one that does: all of them sign.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if *self.stopping.borrow() {
            missing.push("the controller is stopping".to_owned());
        }
        if self.authority.borrow().is_none() {
            missing.push("there is no root and no intermediate yet".to_owned());
        } else if self.tls.borrow().is_none() {
            missing.push("the controller has no certificate of its own".to_owned());
        }
        missing
    }

    pub(super) fn status(&self) -> Status {
        let authority = self.authority.borrow().clone();
        let issuer = authority.as_ref().and_then(|it| it.describe_issuer().ok());
        let missing = self.missing();
        let now = std::time::SystemTime::now();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            replica: self.replica.clone(),
            leads: self.leadership.is_held(),
            ready: missing.is_empty(),
            not_ready: missing,
            issuer_life_percent: issuer
                .as_ref()
                .and_then(|it| spent_percent(&it.not_before, &it.not_after, now)),
            issuer,
            roots: authority.map_or(0, |it| it.root_count()),
        }
    }

    fn issuer_expires(&self) -> i64 {
        let authority = self.authority.borrow().clone();
        authority.map_or(0, |authority| authority.issuer_expires_in_seconds())
    }
}
