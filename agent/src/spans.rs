//! How the receiver of spans is reached: services of the mesh by their endpoints, others as the system does, and TLS
//! as towards any host outside the mesh.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use undermesh_identity::{OutsideTls, Protocols};
use undermesh_model::traffic::{ClientTls, KeyMaterial, TlsMode};
use undermesh_snapshot::Snapshot;
use undermesh_telemetry::{ClientConfig, Directory, Spans, Telemetry};

use crate::config::TracingConfig;

struct Known {
    snapshot: Arc<ArcSwap<Snapshot>>,
    outside: OutsideTls,
    tls: ClientTls,
}

impl Directory for Known {
    fn addresses(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        self.snapshot.load().addresses_of(host, port)
    }

    fn tls(&self, alpn: Protocols) -> Result<Arc<ClientConfig>, String> {
        self.outside.client_config(&self.tls, alpn).map_err(|error| error.to_string())
    }
}

/// Starts to send what the proxy records.
pub(crate) fn start(
    config: &TracingConfig,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    telemetry: &Telemetry,
) -> Result<()> {
    let ca = config.ca.as_ref().map(|path| KeyMaterial::File(path.display().to_string()));
    let tls = ClientTls { mode: TlsMode::Simple, ca, ..ClientTls::default() };
    let known = Known { snapshot: Arc::clone(snapshot), outside: OutsideTls::default(), tls };
    let spans = Spans::start(config.endpoint.clone(), Arc::new(known));
    telemetry.export_spans(spans.context("cannot start to send spans")?);
    Ok(())
}
