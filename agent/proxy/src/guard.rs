//! Requests judged at their destination, however they got here.
//!
//! A connection whose policy looks at requests is not simply delivered:
//! limit -> sniff -> (opaque | http). A request: head -> readings -> ask (`ext_authz`) -> authenticate -> judge ->
//! limit -> link (the application). Nothing of it can be gone around, because every way into a pod ends in
//! [`crate::authorize`], which hands over to this module what it cannot decide: tunnels, native sessions, what the
//! kernel has captured, and requests that the proxy itself brings from another pod of the node.

mod attributes;
mod exchange;
pub(crate) mod explain;
mod ext_authz;
mod fetch;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod keys;
mod limit;
mod limited;
mod link;
mod opaque;
mod path;
mod service;
mod token;
mod watched;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use undermesh_model::SpiffeId;
use undermesh_snapshot::{CompiledPolicy, ConnectionAttributes, evaluate};
use undermesh_telemetry::ConnectionInfo;

use crate::{
    authorize::{Attempt, Denial, PolicyWatch, changed},
    duplex::{Duplex, Reread, Stream},
    error::Failure,
    http::{Look, Spoken, sniff},
    pod::Pod,
    record,
};

pub use ext_authz::AuthorizerStatus;
pub(crate) use ext_authz::Authorizers;
pub(crate) use http::serve_bytes;
pub use keys::KeyStatus;
pub(crate) use keys::Keys;
pub(crate) use limit::connection as count_connection;
pub(crate) use opaque::authorize as authorize_opaque;
pub(crate) use service::Services;
use watched::Watched;

/// A connection that is judged, as far as it was judged already.
#[derive(Clone)]
pub(crate) struct Visit {
    /// The pod that is visited.
    pub(crate) pod: Arc<Pod>,
    /// Who the client has proven to be; nobody, for plaintext.
    pub(crate) source: Option<SpiffeId>,
    /// Where the connection comes from.
    pub(crate) source_addr: SocketAddr,
    /// The client, as the application should see it.
    pub(crate) client: SocketAddr,
    /// The application.
    pub(crate) destination: SocketAddr,
    /// How the application is connected to.
    pub(crate) delivery: Delivery,
}

/// From which address an application is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As the pod is set up.
    AsSetUp,
    /// From loopback: the client's own connection to this very port is held by the agent.
    Translated,
}

impl Visit {
    /// What its policy is asked about.
    pub(crate) fn attempt(&self) -> Attempt<'_> {
        Attempt {
            source: self.source.as_ref(),
            source_addr: self.source_addr,
            destination: self.destination,
            workload: &self.pod.workload.identity,
        }
    }

    fn attributes(&self) -> ConnectionAttributes<'_> {
        self.attempt().attributes()
    }

    /// The policy as it is now.
    fn policy(&self) -> Arc<CompiledPolicy> {
        self.pod.policy.borrow().clone().unwrap_or_default()
    }

    /// Waits until a changed policy refuses the connection, whatever it carries.
    pub(crate) async fn revoked(&self, policies: &mut PolicyWatch) -> Denial {
        let judged = |policy: &CompiledPolicy| {
            let decision = evaluate(policy, &self.attributes());
            (!decision.allowed && !decision.waits()).then(|| {
                self.pod.shared.metrics.record_policy_denial(&decision);
                decision.to_string().into()
            })
        };
        changed(policies, judged).await
    }
}

/// Serves a connection about which `info` is known to its end. `over` gets the stream back where it has
/// ended in order.
pub(crate) async fn serve<D>(
    visit: Visit,
    info: ConnectionInfo,
    stream: D,
    policies: PolicyWatch,
    over: impl FnOnce(D) + Send + 'static,
) where
    D: Duplex + Unpin + Send + 'static,
{
    if let Err(Denial { reason, detail }) = limit::connection(&visit) {
        let failure = Failure::Denied { reason, detail };
        return record::inbound_refused(&visit.pod, info, &failure);
    }
    let mut stream = Reread::new(stream);
    let patience = visit.pod.shared.config.detect_timeout;
    let spoken = first(&mut stream, patience).await;
    if !matches!(spoken, Spoken::Http1 | Spoken::Http2) {
        opaque::serve(&visit, info, &mut stream, policies).await;
        return over(stream.into_inner());
    }
    let (stream, watch) = Watched::new(stream);
    let stream = Stream::new(stream).when_over(move |stream, _| {
        if let Some(stream) = stream.into_inner() {
            over(stream.into_inner());
        }
    });
    tokio::select! {
        () = http::serve(visit, info, stream, spoken == Spoken::Http2, policies) => {}
        () = watch.broken() => {}
    }
}

/// What the client speaks. One that says nothing for so long speaks no HTTP.
async fn first<D: Duplex>(stream: &mut Reread<D>, patience: Duration) -> Spoken {
    let sniffed = tokio::time::timeout(patience, sniff(stream, Look::ForAll, patience)).await;
    sniffed.unwrap_or(Spoken::Other)
}
