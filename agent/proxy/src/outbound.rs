//! A connection of a local pod's application, on its way out:
//! accept -> original_dst -> resolve -> plan -> balance -> connect -> forward -> record.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use undermesh_model::Wire;

use crate::{
    accept::Slot,
    authority::canonical,
    balance,
    connect::connect,
    duplex::{Socket, TunnelStream},
    error::Failure,
    forward::forward,
    metrics::Direction,
    native::{self, DialError, Session},
    plan::{self, Plan, Target},
    pod::{Open, Pod},
    record::Outbound,
    request,
    tunnel::{Permit, TunnelKey},
};

/// Where a connection was led to.
enum Upstream {
    Plain(Socket),
    Tunnel(TunnelStream<Permit>),
    Native(Box<Session>),
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(pod: Arc<Pod>, stream: TcpStream, peer: SocketAddr, _slot: Slot) {
    let _open = Open::new(&pod.outbound_open);
    let _gauge = pod.shared.metrics.connection(Direction::Outbound);
    tokio::select! {
        () = serve_connection(&pod, Socket::new(stream), peer) => {}
        // Dropping both streams resets them.
        () = pod.kill.cancelled() => {}
    }
}

async fn serve_connection(pod: &Pod, mut client: Socket, peer: SocketAddr) {
    let mut log = Outbound::new(pod, peer);
    let Some(dialled) = pod.original_dst.original_dst(peer) else {
        return log.refused(&Failure::OriginalDstUnknown { peer });
    };
    let plan = make_plan(pod, canonical(dialled));
    log.planned(&plan);
    // Boxed, so that a connection which is established does not keep the room for connecting.
    let connecting = Box::pin(connect_upstream(pod, &mut client, &plan, &mut log));
    let upstream = match connecting.await {
        Ok(upstream) => upstream,
        Err(failure) => return log.refused(&failure),
    };
    let record = log.open();
    let ending = match upstream {
        Upstream::Plain(mut server) => forward(&mut client, &mut server, record.counters()).await,
        Upstream::Tunnel(mut server) => forward(&mut client, &mut server, record.counters()).await,
        Upstream::Native(mut session) => {
            record.counters().add_received(session.early);
            let ending = forward(&mut client, &mut session.stream, record.counters()).await;
            session.finish(&pod.native);
            ending
        }
    };
    record.close(ending.close_reason());
}

fn make_plan(pod: &Pod, dialled: SocketAddr) -> Plan {
    let shared = &pod.shared;
    let attempts = shared.config.connect_attempts;
    // The address that the kernel, too, knows the client by; a client may be bound to another.
    let addresses = pod.workload.addresses.iter();
    let own = addresses.copied().find(|address| address.is_ipv4() == dialled.is_ipv4());
    let client = own.unwrap_or(dialled.ip());
    plan::decide(&shared.snapshot.load(), client, dialled, attempts, balance::random)
}

/// Connects, unless the application gives up first.
async fn connect_upstream(
    pod: &Pod,
    client: &mut Socket,
    plan: &Plan,
    log: &mut Outbound<'_>,
) -> Result<Upstream, Failure> {
    let gone = client.broken();
    tokio::select! {
        result = try_targets(pod, client, plan, log) => result,
        _ = gone => Err(Failure::ClientGone),
    }
}

/// Tries one endpoint after the other. No byte of the application has been read by anybody yet.
async fn try_targets(
    pod: &Pod,
    client: &mut Socket,
    plan: &Plan,
    log: &mut Outbound<'_>,
) -> Result<Upstream, Failure> {
    let mut failure = Failure::NoEndpoints { dialled: plan.dialled };
    for target in &plan.targets {
        log.target(target);
        failure = match connect_target(pod, client, plan, target, log).await {
            Ok(upstream) => return Ok(upstream),
            Err(failure) => failure,
        };
        tracing::debug!(to = %target.address, %failure, "endpoint failed");
        if !failure.may_try_another() {
            break;
        }
    }
    Err(failure)
}

/// Connects to one endpoint. **Invariant**: an enrolled workload is reached over a wire that proved
/// its identity, or not at all, unless a PeerAuthentication says `DISABLE` about the port.
async fn connect_target(
    pod: &Pod,
    client: &mut Socket,
    plan: &Plan,
    target: &Target,
    log: &mut Outbound<'_>,
) -> Result<Upstream, Failure> {
    let (Some(workload), Some(wire)) = (&target.workload, target.wire) else {
        let stream = connect(&*pod.sockets, None, target.address, &pod.shared.config).await?;
        return Ok(Upstream::Plain(Socket::new(stream)));
    };
    let identity = workload.identity.clone();
    let key = TunnelKey { address: target.address, identity };
    if wire == Wire::Hbone || pod.workload.wire == Wire::Hbone || pod.native.is_hbone_only(&key) {
        log.wire(Wire::Hbone);
        return connect_hbone(pod, plan, key, log.client()).await;
    }
    match Box::pin(native::open(pod, &key, log.client(), client)).await {
        Ok(session) => Ok(Upstream::Native(Box::new(session))),
        Err(DialError::Failed(failure)) => Err(failure),
        Err(DialError::NotSpoken(failure)) => {
            log.wire(Wire::Hbone);
            let upstream = connect_hbone(pod, plan, key.clone(), log.client()).await?;
            fall_back(pod, &key, &failure);
            Ok(upstream)
        }
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

/// Opens a stream of a tunnel to the pod of `native`, for the application at its address and port.
async fn connect_hbone(
    pod: &Pod,
    plan: &Plan,
    native: TunnelKey,
    client: SocketAddr,
) -> Result<Upstream, Failure> {
    let config = &pod.shared.config;
    let destination = native.address;
    let key = TunnelKey {
        address: SocketAddr::new(destination.ip(), config.hbone_port),
        identity: native.identity,
    };
    let host = plan.service.as_ref().map(|service| service.host.as_str());
    let request = || request::build(destination, client, host, &pod.workload);
    let permit = pod.pool.acquire(&key, 0).await?;
    let tunnel = Arc::clone(&permit.tunnel);
    let error = match permit.open(request()?, config.request_timeout).await {
        Ok(stream) => return Ok(Upstream::Tunnel(stream)),
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
