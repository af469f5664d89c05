//! A connection of a local pod's application, on its way out:
//! accept -> original_dst -> resolve -> plan -> balance -> connect -> forward -> record.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use tokio_util::either::Either;
use undermesh_telemetry::ConnectionRecord;

use crate::{
    accept::Slot,
    authority::canonical,
    balance,
    duplex::Socket,
    error::Failure,
    follow::note,
    http,
    metrics::Direction,
    overload::Carried,
    plan::{self, Dialler, Plan, Target},
    pod::{Open, Pod},
    reach::{Reach, Upstream},
    record::Outbound,
};

/// Serves one accepted connection to its end.
pub(crate) async fn serve(pod: Arc<Pod>, stream: TcpStream, peer: SocketAddr, _slot: Slot) {
    let _open = Open::new(&pod.outbound_open);
    let _gauge = pod.shared.metrics.connection(Direction::Outbound);
    tokio::select! {
        () = serve_connection(&pod, stream, peer) => {}
        // Dropping both streams resets them.
        () = pod.kill.cancelled() => {}
    }
}

/// No part of the task: what is needed only here has no place in it.
fn serve_connection(
    pod: &Arc<Pod>,
    stream: TcpStream,
    peer: SocketAddr,
) -> impl Future<Output = ()> + use<'_> {
    let dialled = pod.original_dst.original_dst(peer).map(canonical);
    let followed = pod.shared.followers.begin(&pod.workload.name, peer, dialled);
    // Boxed, so that it has no place here once it has become the record.
    let log = Box::new(Outbound::new(pod, peer, dialled));
    let carried = carry(pod, stream, log);
    match followed {
        // Boxed: hardly any is followed.
        Some(followed) => Either::Left(Box::pin(followed.carry(carried))),
        None => Either::Right(carried),
    }
}

async fn carry<'a>(pod: &'a Arc<Pod>, stream: TcpStream, mut log: Box<Outbound<'a>>) {
    let mut client = Socket::new(stream);
    let plan = match begin(pod, &mut log) {
        Ok(plan) => plan,
        Err(failure) => return log.refused(&failure),
    };
    let traffic = http::asked(pod, &plan);
    let carried = if traffic.is_some() { Carried::Requests } else { Carried::Bytes };
    if let Err(failure) = pod.has_room(carried) {
        return log.refused(&failure);
    }
    if let Some(traffic) = traffic {
        // Boxed, so that a connection whose bytes nobody looks at has no room for it.
        return Box::pin(http::serve_connection(pod, client, plan.dialled, &traffic, *log)).await;
    }
    // Boxed, so that a connection which is established does not keep the room for connecting.
    let connecting = Box::pin(connect_upstream(pod, &mut client, &plan, &mut log));
    let upstream = match connecting.await {
        Ok(upstream) => upstream,
        Err(failure) => return log.refused(&failure),
    };
    let record = open(log);
    let ending = upstream.relay(pod, &mut client, record.counters()).await;
    record.close(ending.close_reason());
}

/// Knows where to. Not a part of the task, which would keep whatever is borrowed here.
fn begin(pod: &Pod, log: &mut Outbound<'_>) -> Result<Plan, Failure> {
    let peer = log.client();
    let dialled = log.info().dialled.ok_or(Failure::OriginalDstUnknown { peer })?;
    note("accepted", || format!("{peer} has dialled {dialled}"));
    let plan = make_plan(pod, dialled);
    log.planned(&plan);
    Ok(plan)
}

/// Takes the box itself: its memory would otherwise be freed where its owner ends.
fn open(log: Box<Outbound<'_>>) -> ConnectionRecord {
    log.open()
}

fn make_plan(pod: &Pod, dialled: SocketAddr) -> Plan {
    let shared = &pod.shared;
    let attempts = shared.config.connect_attempts;
    // The address that the kernel, too, knows the client by; a client may be bound to another.
    let addresses = pod.workload.addresses.iter();
    let own = addresses.copied().find(|address| address.is_ipv4() == dialled.is_ipv4());
    let address = own.unwrap_or(dialled.ip());
    let client = Dialler { address, namespace: &pod.workload.name.namespace };
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
    let mut failure = plan.refusal();
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

async fn connect_target(
    pod: &Pod,
    client: &mut Socket,
    plan: &Plan,
    target: &Target,
    log: &mut Outbound<'_>,
) -> Result<Upstream, Failure> {
    let host = plan.service.as_ref().map(|service| service.host.as_str());
    let reach = Reach { pod, host, client: log.client() };
    reach.target(target, Some(client), &mut |wire| log.wire(wire)).await
}
