//! Step *connect* of an outbound connection: to an endpoint, by the wire that its agent speaks.

use std::{net::SocketAddr, sync::Arc};

use undermesh_model::Wire;
use undermesh_telemetry::ByteCounters;

use crate::{
    connect::connect,
    duplex::{Socket, TlsStream, TunnelStream},
    error::Failure,
    follow::note,
    forward::{Ending, forward},
    native::{self, DialError, Session},
    plan::Target,
    pod::Pod,
    request,
    tunnel::{Permit, TunnelKey},
};

/// Where a connection was led to.
pub(crate) enum Upstream {
    Plain(Socket),
    Tunnel(TunnelStream<Permit>),
    Native(Box<Session>),
    /// TLS of a rule's own, to an endpoint outside the mesh.
    Tls(Box<TlsStream>),
}

impl Upstream {
    /// Copies bytes between `client` and the endpoint until the end.
    pub(crate) async fn relay(
        self,
        pod: &Pod,
        client: &mut Socket,
        counters: &ByteCounters,
    ) -> Ending {
        match self {
            Self::Plain(mut server) => forward(client, &mut server, counters).await,
            Self::Tunnel(mut server) => forward(client, &mut server, counters).await,
            Self::Tls(mut server) => forward(client, &mut *server, counters).await,
            Self::Native(mut session) => {
                counters.add_received(session.early);
                let ending = forward(client, &mut session.stream, counters).await;
                session.finish(&pod.native);
                ending
            }
        }
    }
}

/// On whose behalf an endpoint is connected to.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    /// The client's pod.
    pub(crate) pod: &'a Pod,
    /// The service that was dialled.
    pub(crate) host: Option<&'a str>,
    /// The client, as its application has it.
    pub(crate) client: SocketAddr,
}

impl Reach<'_> {
    /// Connects to one endpoint, and says over which wire. What `client` has said already may go along.
    ///
    /// **Invariant**: an enrolled workload is reached over a wire that proved its identity, or not at
    /// all, unless a PeerAuthentication says `DISABLE` about the port.
    pub(crate) async fn target(
        self,
        target: &Target,
        client: Option<&mut Socket>,
        note: &mut (dyn FnMut(Wire) + Send),
    ) -> Result<Upstream, Failure> {
        let pod = self.pod;
        let (Some(workload), Some(wire)) = (&target.workload, target.wire) else {
            let stream = connect(&*pod.sockets, None, target.address, &pod.shared.config).await?;
            return Ok(Upstream::Plain(Socket::new(stream)));
        };
        let key = TunnelKey { address: target.address, identity: workload.identity.clone() };
        let hbone = Wire::Hbone;
        if wire == hbone || pod.workload.wire == hbone || pod.native.is_hbone_only(&key) {
            note(hbone);
            return self.hbone(key).await;
        }
        match Box::pin(native::open(pod, &key, self.client, client)).await {
            Ok(session) => Ok(Upstream::Native(Box::new(session))),
            Err(DialError::Failed(failure)) => Err(failure),
            Err(DialError::NotSpoken(failure)) => {
                note(hbone);
                let upstream = self.hbone(key.clone()).await?;
                fall_back(pod, &key, &failure);
                Ok(upstream)
            }
        }
    }

    /// Opens a stream of a tunnel to the pod of `native`, for the application at its address and port.
    async fn hbone(self, native: TunnelKey) -> Result<Upstream, Failure> {
        let Self { pod, host, client } = self;
        let config = &pod.shared.config;
        let destination = native.address;
        let key = TunnelKey {
            address: SocketAddr::new(destination.ip(), config.hbone_port),
            identity: native.identity,
        };
        let request = || request::build(destination, client, host, &pod.workload);
        let permit = pod.pool.acquire(&key, 0).await?;
        let tunnel = Arc::clone(&permit.tunnel);
        let error = match permit.open(request()?, config.request_timeout).await {
            Ok(stream) => {
                note("session", || format!("{} has accepted", key.identity));
                return Ok(Upstream::Tunnel(stream));
            }
            Err(error) => error,
        };
        if !error.tunnel_dead {
            return Err(error.failure);
        }
        // A pooled tunnel may have died unnoticed; that is no reason to fail the application.
        pod.pool.remove(&tunnel);
        let permit = pod.pool.acquire(&key, tunnel.id).await?;
        let stream = permit.open(request()?, config.request_timeout).await;
        stream.map(Upstream::Tunnel).map_err(|error| error.failure)
    }
}

/// Notes that a destination was reached over HBONE after the native wire had failed.
fn fall_back(pod: &Pod, key: &TunnelKey, failure: &Failure) {
    pod.shared.metrics.native.record_fallback(failure.reason());
    if pod.native.remember_hbone_only(key) {
        let (pod, to) = (&pod.workload.name, key.address);
        tracing::info!(%pod, %to, %failure, "the native wire is not spoken; using HBONE");
    }
}
