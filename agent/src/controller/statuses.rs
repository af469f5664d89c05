//! Statuses: what was found about objects is written into them, where something else stands there; and lines of
//! the audit log about what has changed in them. The leader does both.
//!
//! What is judged are the very objects that are written to, so that a status is about the generation that it
//! names.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::watch;
use undermesh_control::{
    ApiError, ApiServer, JUDGED_KINDS, JudgedKind, Keeping, StatusWrite, read_objects,
};
use undermesh_model::Diagnostic;
use undermesh_snapshot::{Options, lint};
use undermesh_telemetry::Audit;

use super::{changes::Changes, leader::Leadership, metrics::Metrics};

/// How often a status is tried to be written that others write as well.
const ATTEMPTS: usize = 3;
/// Between two writes: statuses of a whole cluster must not fill the API server's queue.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct StatusWriter {
    pub(super) api: ApiServer,
    pub(super) options: Options,
    pub(super) leadership: Leadership,
    pub(super) every: Duration,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
}

impl StatusWriter {
    /// Runs until `stop`.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut leadership = self.leadership.clone();
        let mut changes = Changes::default();
        let mut complaint = None;
        loop {
            let round = async {
                if !self.leadership.is_held() {
                    // What happens meanwhile is the other leader's to audit.
                    changes = Changes::default();
                    return Ok(());
                }
                self.round(&mut changes).await
            };
            let result = tokio::select! {
                result = round => result,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let said = result.err().map(|error| format!("{error:#}"));
            if said != complaint {
                match &said {
                    Some(error) => tracing::warn!(error, "statuses cannot be looked after"),
                    None => tracing::info!("statuses can be looked after again"),
                }
                complaint = said;
            }
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = leadership.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn round(&self, changes: &mut Changes) -> Result<()> {
        let mut judged: Vec<(&'static JudgedKind, Value)> = Vec::new();
        for kind in &JUDGED_KINDS {
            let found = self.api.judged(kind).await.with_context(|| kind.kind)?;
            judged.extend(found.into_iter().map(|object| (kind, object)));
        }
        for event in changes.note(&judged) {
            self.audit.record(&event);
        }
        if judged.is_empty() {
            return Ok(());
        }
        let mut all = self.api.context().await.context("Services and Namespaces")?;
        all.extend(judged.iter().map(|(_, object)| object.clone()));
        let options = self.options.clone();
        let findings = tokio::task::spawn_blocking(move || findings(&all, &options)).await;
        let findings = Arc::new(findings.context("objects cannot be judged")?);
        let mut failed = None;
        for (kind, object) in &judged {
            if !self.leadership.is_held() {
                return Ok(());
            }
            if let Err(error) = self.write(kind, object, &findings).await {
                self.metrics.status_write("failed");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), |error| Err(error).context("a status cannot be written"))
    }

    /// Writes one status, again where somebody else was faster.
    async fn write(
        &self,
        kind: &JudgedKind,
        object: &Value,
        findings: &[Diagnostic],
    ) -> Result<(), ApiError> {
        let now = time_now();
        let mut next = kind.status(object, findings, &now);
        for _ in 0..ATTEMPTS {
            let Some(write) = next else { return Ok(()) };
            tokio::time::sleep(PAUSE).await;
            let written = self.leadership.write(self.api.write_status(&write)).await;
            match written.transpose()? {
                None => return Ok(()),
                Some(Keeping::Done) => {
                    self.metrics.status_write("written");
                    return Ok(());
                }
                Some(Keeping::Overtaken) => {
                    self.metrics.status_write("conflict");
                    next = self.again(kind, object, &write, findings, &now).await?;
                }
            }
        }
        // The next round sees what has become of it.
        Ok(())
    }

    /// The same for the object as it is now; nothing where it says something else by now, which was not
    /// judged.
    async fn again(
        &self,
        kind: &JudgedKind,
        judged: &Value,
        write: &StatusWrite,
        findings: &[Diagnostic],
        now: &str,
    ) -> Result<Option<StatusWrite>, ApiError> {
        let Some(object) = self.api.again(write).await? else { return Ok(None) };
        let same = ["uid", "generation"]
            .iter()
            .all(|field| object["metadata"][*field] == judged["metadata"][*field]);
        Ok(if same { kind.status(&object, findings, now) } else { None })
    }
}

fn findings(objects: &[Value], options: &Options) -> Vec<Diagnostic> {
    let (cluster, mut findings) = read_objects(objects);
    findings.extend(lint::findings(&cluster, options));
    findings
}

fn time_now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}
