//! A connection of a local pod's application, on its way out:
//! accept -> original_dst -> resolve -> plan -> balance -> connect -> forward -> record.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::{
    accept::Slot,
    authority::canonical,
    balance,
    connect::connect,
    duplex::{Duplex, Socket, TunnelStream},
    error::Failure,
    forward::forward,
    metrics::Direction,
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
    tokio::select! {
        result = try_targets(pod, plan, log) => result,
        _ = poll_fn(|cx| client.poll_broken(cx)) => Err(Failure::ClientGone),
    }
}

/// Tries one endpoint after the other. No byte of the application has been read yet.
async fn try_targets(pod: &Pod, plan: &Plan, log: &mut Outbound<'_>) -> Result<Upstream, Failure> {
    let mut failure = Failure::NoEndpoints { dialled: plan.dialled };
    for target in &plan.targets {
        log.target(target);
        failure = match connect_target(pod, plan, target, log.client()).await {
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

/// Connects to one endpoint. **Invariant**: an enrolled workload is reached through a tunnel that
/// proved its identity, or not at all, unless a PeerAuthentication says `DISABLE` about the port.
async fn connect_target(
    pod: &Pod,
    plan: &Plan,
    target: &Target,
    client: SocketAddr,
) -> Result<Upstream, Failure> {
    let config = &pod.shared.config;
    let Some(workload) = target.workload.as_ref().filter(|_| target.tunnel) else {
        let stream = connect(&*pod.sockets, None, target.address, config).await?;
        return Ok(Upstream::Plain(Socket::new(stream)));
    };
    let key = TunnelKey {
        address: SocketAddr::new(target.address.ip(), config.hbone_port),
        identity: workload.identity.clone(),
    };
    let host = plan.service.as_ref().map(|service| service.host.as_str());
    let request = || request::build(target.address, client, host, &pod.workload);
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
