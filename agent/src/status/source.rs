//! Where configuration comes from, and how that is.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use undermesh_control::{HealthReport, ListReport};

use super::duration;
use crate::config::SourceConfig;

/// The source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceStatus {
    /// `manifests`, `kubernetes` or `controller`.
    pub(crate) kind: String,
    /// The directory, the API server, or the controllers.
    pub(crate) from: String,
    /// Everything has been read.
    pub(crate) complete: bool,
    /// When the state was written that is in force, in seconds since 1970, where it comes from the cache.
    pub(crate) cached: Option<u64>,
    /// Why nothing can be read, where that is so.
    pub(crate) problem: String,
    /// Lists of an API server.
    pub(crate) lists: Vec<ListRow>,
}

/// A list that is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListRow {
    pub(crate) name: String,
    pub(crate) objects: usize,
    pub(crate) complete: bool,
    /// Since the server was last heard; absent where it never was.
    pub(crate) silent_for_seconds: Option<u64>,
    /// Watches opened again, and lists read again.
    pub(crate) restarts: u64,
    pub(crate) relists: u64,
    pub(crate) problem: String,
}

impl SourceStatus {
    pub(crate) fn new(config: &SourceConfig, health: HealthReport) -> Self {
        match config {
            SourceConfig::Manifests(dir) => Self {
                kind: "manifests".to_owned(),
                from: dir.display().to_string(),
                complete: true,
                ..Self::default()
            },
            SourceConfig::Kubernetes { .. } | SourceConfig::Controller { .. } => Self {
                kind: match config {
                    SourceConfig::Controller { .. } => "controller".to_owned(),
                    _ => "kubernetes".to_owned(),
                },
                from: health.server,
                complete: health.complete,
                cached: health.cached.map(seconds),
                problem: health.problem.unwrap_or_default(),
                lists: health.lists.into_iter().map(ListRow::from).collect(),
            },
        }
    }

    /// One line of it.
    pub(super) fn summary(&self) -> String {
        let Self { kind, from, .. } = self;
        let state = match (self.complete, self.cached) {
            (true, _) => String::new(),
            (false, None) => ", NOT COMPLETE".to_owned(),
            (false, Some(written)) => {
                let age = seconds(SystemTime::now()).saturating_sub(written);
                format!(", from the cache, {} old", duration(age.cast_signed()))
            }
        };
        let problem = if self.problem.is_empty() { "" } else { ": " };
        format!("{kind} {from}{state}{problem}{}", self.problem)
    }
}

impl ListRow {
    pub(super) fn row(&self) -> Vec<String> {
        let heard = self.silent_for_seconds.map_or_else(
            || "never".to_owned(),
            |seconds| format!("{} ago", duration(seconds.cast_signed())),
        );
        vec![
            self.name.clone(),
            self.objects.to_string(),
            if self.complete { "yes" } else { "NO" }.to_owned(),
            heard,
            self.restarts.to_string(),
            self.relists.to_string(),
            self.problem.clone(),
        ]
    }
}

impl From<ListReport> for ListRow {
    fn from(list: ListReport) -> Self {
        Self {
            name: list.name,
            objects: list.objects,
            complete: list.complete,
            silent_for_seconds: list.silent_for.map(|silent| silent.as_secs()),
            restarts: list.restarts,
            relists: list.relists,
            problem: list.problem.unwrap_or_default(),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
