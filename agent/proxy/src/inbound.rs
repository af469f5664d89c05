//! A tunnel that a peer opens to a local pod, and the connections in it:
//! accept -> terminate -> request -> authorize -> connect -> forward -> record.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response};
use tokio::net::TcpStream;
use undermesh_model::Wire;

use crate::{
    accept::Slot,
    authorize::{Admission, Attempt, Denial, PolicyWatch, authorize, late, revoked},
    deliver,
    duplex::{Socket, TunnelStream},
    error::Failure,
    forward::forward,
    guard::{self, Delivery, Visit},
    headers, keepalive,
    metrics::Direction,
    overload::Carried,
    pod::{Open, Pod},
    record::{self, Caller},
    request,
    terminate::{Connection, terminate},
};

/// Serves one accepted tunnel to its end.
pub(crate) async fn serve(pod: Arc<Pod>, stream: TcpStream, peer: SocketAddr, _slot: Slot) {
    let _open = Open::new(&pod.tunnels_open);
    tokio::select! {
        () = serve_tunnel(&pod, stream, peer) => {}
        () = pod.kill.cancelled() => {}
    }
}

async fn serve_tunnel(pod: &Arc<Pod>, stream: TcpStream, peer: SocketAddr) {
    if let Err(failure) = pod.has_room(Carried::Bytes) {
        return record::tunnel_refused(pod, peer, Wire::Hbone, &failure);
    }
    match Box::pin(terminate(pod, stream, peer)).await {
        Ok((connection, caller)) => {
            let _gauge = pod.shared.metrics.tunnel(Direction::Inbound);
            serve_requests(pod, connection, Arc::new(caller)).await;
        }
        Err(failure) => record::tunnel_refused(pod, peer, Wire::Hbone, &failure),
    }
}

/// Takes requests until the peer leaves, a PING goes unanswered, or nobody uses the tunnel.
async fn serve_requests(pod: &Arc<Pod>, mut connection: Connection, caller: Arc<Caller>) {
    let config = &pod.shared.config;
    let lost = keepalive::lost(connection.ping_pong(), config.keepalive);
    tokio::pin!(lost);
    let mut last_used = Instant::now();
    let mut closing = false;
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok((request, respond))) => {
                    last_used = Instant::now();
                    start(pod, &caller, request, respond);
                }
                Some(Err(error)) => {
                    tracing::debug!(peer = %caller.address, %error, "inbound tunnel ended");
                    return;
                }
                None => return,
            },
            () = &mut lost => return,
            // The peer opens new tunnels, perhaps to the agent that takes over.
            () = pod.stop.cancelled(), if !closing => {
                closing = true;
                connection.graceful_shutdown();
            }
            () = tokio::time::sleep(idle_check(config.pool.idle)), if !closing => {
                if connection.has_streams() {
                    last_used = Instant::now();
                }
                if last_used.elapsed() >= config.pool.idle || has_expired(pod, &caller) {
                    closing = true;
                    connection.graceful_shutdown();
                }
            }
        }
    }
}

/// A tunnel must not outlive the proof that it was opened with: no new connections then.
pub(crate) fn has_expired(pod: &Pod, caller: &Caller) -> bool {
    caller.until < pod.shared.identities.now()
}

/// Time between two looks at whether a tunnel is in use.
fn idle_check(idle: Duration) -> Duration {
    (idle / 4).max(Duration::from_millis(10))
}

fn start(
    pod: &Arc<Pod>,
    caller: &Arc<Caller>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let task_pod = Arc::clone(pod);
    let caller = Arc::clone(caller);
    let task = async move {
        let _open = Open::new(&task_pod.inbound_open);
        let _gauge = task_pod.shared.metrics.connection(Direction::Inbound);
        tokio::select! {
            () = serve_connection(&task_pod, &caller, request, respond) => {}
            // Dropping both streams resets them.
            () = task_pod.kill.cancelled() => {}
        }
    };
    pod.spawn(task);
}

async fn serve_connection(
    pod: &Arc<Pod>,
    caller: &Caller,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let client = request::client(request.headers(), caller.address);
    let destination = request::destination(&request);
    let info =
        record::inbound(pod, caller, client, destination.as_ref().ok().copied(), Wire::Hbone);
    // From before the decision, so that no change of policy is missed.
    let mut policies = pod.policy.subscribe();
    let connected = match destination {
        // Boxed for the same reason as on the way out.
        Ok(destination) => {
            let connecting =
                connect_application(pod, caller, client, destination, &mut policies, &mut respond);
            Box::pin(connecting).await.map(|admitted| (destination, admitted))
        }
        Err(failure) => Err(failure),
    };
    let connected = connected.and_then(|(destination, admitted)| {
        Ok((destination, accept_stream(request, &mut respond)?, admitted))
    });
    let (destination, mut tunnel, admitted) = match connected {
        Ok(both) => both,
        Err(failure) => {
            refuse(&mut respond, &failure);
            return record::inbound_refused(pod, info, &failure);
        }
    };
    let Admitted::Delivered(mut server) = admitted else {
        let visit = visit(pod, caller, client, destination);
        return Box::pin(guard::serve(visit, info, tunnel, policies, |_| {})).await;
    };
    let record = pod.shared.telemetry.open(info);
    let attempt = attempt(pod, caller, destination);
    let reason = tokio::select! {
        ending = forward(&mut tunnel, &mut server, record.counters()) => ending.close_reason(),
        // Dropping both streams resets them.
        denial = revoked(&attempt, &mut policies, &pod.shared.metrics) => late(&denial),
    };
    record.close(reason);
}

/// A connection that is not refused.
pub(crate) enum Admitted {
    /// The application is connected.
    Delivered(Socket),
    /// Its requests are judged first.
    Judged,
}

/// A connection of `caller` whose requests are judged.
pub(crate) fn visit(
    pod: &Arc<Pod>,
    caller: &Caller,
    client: SocketAddr,
    destination: SocketAddr,
) -> Visit {
    Visit {
        pod: Arc::clone(pod),
        source: Some(caller.identity.clone()),
        source_addr: caller.address,
        client,
        destination,
        delivery: Delivery::AsSetUp,
    }
}

pub(crate) fn attempt<'a>(
    pod: &'a Pod,
    caller: &'a Caller,
    destination: SocketAddr,
) -> Attempt<'a> {
    Attempt {
        source: Some(&caller.identity),
        source_addr: caller.address,
        destination,
        workload: &pod.workload.identity,
    }
}

/// Authorizes and connects, unless the peer gives up first.
async fn connect_application(
    pod: &Pod,
    caller: &Caller,
    client: SocketAddr,
    destination: SocketAddr,
    policies: &mut PolicyWatch,
    respond: &mut SendResponse<Bytes>,
) -> Result<Admitted, Failure> {
    deliver::check(pod, destination)?;
    let policy = policies.borrow_and_update().clone();
    let attempt = attempt(pod, caller, destination);
    let admission = authorize(&attempt, policy.as_deref(), &pod.shared.metrics)
        .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })?;
    let judged = admission == Admission::Judge;
    pod.has_room(if judged { Carried::Requests } else { Carried::Bytes })?;
    if judged {
        return Ok(Admitted::Judged);
    }
    tokio::select! {
        socket = deliver::deliver(pod, client, destination) => socket.map(Admitted::Delivered),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => Err(Failure::ClientGone),
    }
}

/// Tells the peer that the application is connected; from now on, the stream carries its bytes.
fn accept_stream(
    request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<TunnelStream<()>, Failure> {
    let send = respond.send_response(Response::new(()), false);
    // Fails only when the stream is closed already.
    let send = send.map_err(|_| Failure::ClientGone)?;
    Ok(TunnelStream::new(send, request.into_body(), ()))
}

/// The one place that turns a failure into a response.
fn refuse(respond: &mut SendResponse<Bytes>, failure: &Failure) {
    let mut response = Response::new(());
    *response.status_mut() = failure.status();
    let reason = HeaderValue::from_static(failure.reason());
    response.headers_mut().insert(headers::REASON, reason);
    // A peer that has left needs no answer.
    let _ = respond.send_response(response, true);
}
