//! Settings about spans of requests: where they go, and of which requests they are made.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use undermesh_proxy::{CustomTag, Sampling, Tracing};
use undermesh_telemetry::{Endpoint, Protocol};

use super::RawConfig;

/// Longest path where nothing else is said (Envoy's `max_path_tag_length`).
const DEFAULT_MAX_PATH: usize = 256;
/// The bound of that bound; a queue of spans is memory.
const MAX_MAX_PATH: usize = 8192;
/// Attributes that may be added.
const MAX_TAGS: usize = 32;

/// What a receiver of spans speaks.
#[derive(Clone, Copy, Debug, Default, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TracingProtocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl From<TracingProtocol> for Protocol {
    fn from(protocol: TracingProtocol) -> Self {
        match protocol {
            TracingProtocol::Grpc => Self::Grpc,
            TracingProtocol::Http => Self::Http,
        }
    }
}

/// The validated settings of tracing.
#[derive(Clone, Debug)]
pub(crate) struct TracingConfig {
    /// Where spans go.
    pub(crate) endpoint: Endpoint,
    /// Roots that its certificate is checked with; `None` for those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// What the proxy does.
    pub(crate) proxy: Tracing,
}

impl TracingConfig {
    /// `None` without a receiver.
    pub(super) fn new(raw: &RawConfig) -> Result<Option<Self>> {
        let Some(text) = raw.tracing_endpoint.as_deref().filter(|text| !text.is_empty()) else {
            return nothing_else(raw).map(|()| None);
        };
        let protocol = raw.tracing_protocol.unwrap_or_default();
        let endpoint = Endpoint::parse(text, protocol.into()).context("tracingEndpoint")?;
        let sampling = raw.tracing_sampling.map_or(Some(Sampling::default()), Sampling::percent);
        let sampling = sampling.context("tracingSampling must be between 0 and 100")?;
        let max_path_length = raw.tracing_max_path_length.unwrap_or(DEFAULT_MAX_PATH);
        ensure!(
            (1..=MAX_MAX_PATH).contains(&max_path_length),
            "tracingMaxPathLength must be between 1 and {MAX_MAX_PATH}"
        );
        let tags = raw.tracing_tags.as_deref().unwrap_or_default();
        ensure!(tags.len() <= MAX_TAGS, "tracingTags may be {MAX_TAGS} at most");
        let tags: Result<Vec<_>, _> = tags.iter().map(|tag| CustomTag::parse(tag)).collect();
        let proxy = Tracing { sampling, max_path_length, tags: tags.context("tracingTags")? };
        Ok(Some(Self { endpoint, ca: raw.tracing_ca.clone(), proxy }))
    }
}

/// A setting that does nothing is a mistake.
fn nothing_else(raw: &RawConfig) -> Result<()> {
    for (name, is_set) in [
        ("tracingProtocol", raw.tracing_protocol.is_some()),
        ("tracingSampling", raw.tracing_sampling.is_some()),
        ("tracingMaxPathLength", raw.tracing_max_path_length.is_some()),
        ("tracingTags", raw.tracing_tags.is_some()),
        ("tracingCa", raw.tracing_ca.is_some()),
    ] {
        ensure!(!is_set, "{name} has no effect without tracingEndpoint");
    }
    Ok(())
}
