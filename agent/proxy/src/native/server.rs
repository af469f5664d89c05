//! Native connections that peers open to a local pod, and the sessions in them:
//! accept -> detect -> terminate -> (open -> authorize -> connect -> forward -> record)*.

use std::{future::poll_fn, net::SocketAddr, sync::Arc};

use rustls::{HandshakeKind, ServerConfig};
use tokio::{net::TcpStream, sync::oneshot, time::Instant};
use tokio_rustls::TlsStream;
use undermesh_identity::NATIVE_ALPN;
use undermesh_model::Wire;
use undermesh_telemetry::{ConnectionInfo, Denial as Denied};

use super::{
    connection::{Connection, Incoming, WireError},
    frame::{Control, FrameError, Refusal},
    io::Io,
    open::Open,
    stream::{Host, NativeStream},
};
use crate::{
    authorize::{Admission, Denial, PolicyWatch, authorize, late, revoked},
    deliver,
    error::{Failure, Side},
    forward::forward,
    guard, identity,
    inbound::{Admitted, attempt, has_expired, visit},
    metrics::{Direction, Handshake, Role},
    overload::Carried,
    pod::{self, Pod},
    record::{self, Caller},
    terminate::{authenticate, tls_failure},
};

/// A connection that a peer has opened.
struct Served {
    connection: Connection,
    caller: Caller,
    /// What the handshake was made with.
    config: Arc<ServerConfig>,
}

/// Serves one accepted connection to its end. `local` is the address that the peer has dialled, and
/// the only one that its sessions may lead to: whoever let the connection pass, a NetworkPolicy for
/// example, has judged that address.
pub(crate) async fn serve(pod: &Arc<Pod>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    let _open = pod::Open::new(&pod.tunnels_open);
    let _calling = pod.callers.add(peer, local);
    let served = match Box::pin(terminate(pod, stream, peer)).await {
        Ok(served) => served,
        Err(failure) => return record::tunnel_refused(pod, peer, Wire::Native, &failure),
    };
    let _gauge = pod.shared.metrics.native.connection(Direction::Inbound);
    serve_sessions(pod, served, local).await;
}

async fn terminate(pod: &Pod, stream: TcpStream, peer: SocketAddr) -> Result<Served, Failure> {
    let shared = &pod.shared;
    let mut handshake = shared.metrics.tls.handshake(Role::Server);
    let shake_hands = shake_hands(pod, stream, peer, &mut handshake);
    let result = tokio::time::timeout(shared.config.handshake_timeout, shake_hands)
        .await
        .unwrap_or(Err(Failure::HandshakeTimeout { peer, side: Side::Downstream }));
    let outcome = match &result {
        Ok((_, HandshakeKind::Resumed)) => "resumed",
        Ok(_) => "full",
        Err(failure) => failure.reason(),
    };
    handshake.failed(outcome);
    shared.metrics.native.record_handshake(Direction::Inbound, outcome);
    result.map(|(served, _)| served)
}

async fn shake_hands(
    pod: &Pod,
    stream: TcpStream,
    peer: SocketAddr,
    handshake: &mut Handshake<'_>,
) -> Result<(Served, HandshakeKind), Failure> {
    let workload = &pod.workload.identity;
    let config = identity::server_config(&pod.shared, workload, Wire::Native).await?;
    let stream = Io::new(stream);
    handshake.begin();
    let (tls, caller) = authenticate(pod, Arc::clone(&config), stream, peer).await?;
    let session = tls.get_ref().1;
    // TLS refuses another protocol, but lets a peer pass that names none.
    if session.alpn_protocol() != Some(NATIVE_ALPN) {
        let error = rustls::Error::NoApplicationProtocol;
        return Err(tls_failure(peer, &error, Side::Downstream));
    }
    let kind = session.handshake_kind().unwrap_or(HandshakeKind::Full);
    handshake.done(kind);
    let connection = Connection::new(TlsStream::from(tls));
    Ok((Served { connection, caller, config }, kind))
}

/// Serves one session after the other until either side has enough.
async fn serve_sessions(pod: &Arc<Pod>, served: Served, local: SocketAddr) {
    let host = Host {
        shared: Arc::clone(&pod.shared),
        tasks: pod.tasks.clone(),
        kill: pod.kill.clone(),
        direction: Direction::Inbound,
    };
    let Served { mut connection, caller, config } = served;
    loop {
        let open = match next(pod, &mut connection, &caller, &config).await {
            Next::Open(open) => open,
            Next::Close => {
                let sessions = connection.sessions;
                return host.finish(connection, Control::Close { sessions });
            }
            Next::Gone(WireError::Closed) => return,
            Next::Gone(error) => return host.note(&error),
        };
        connection.sessions = connection.sessions.wrapping_add(1);
        connection.in_session = true;
        let session = Incomer { pod, host: &host, caller: &caller, local };
        let Some(given_back) = session.serve(connection, open).await else { return };
        connection = given_back;
    }
}

/// What comes next on a connection.
enum Next {
    /// A session.
    Open(Open),
    /// Nothing any more: nobody uses it, it must not be used, or the pod takes no more connections.
    Close,
    /// The peer has left or has gone mad.
    Gone(WireError),
}

/// Waits for the next session. A connection must not outlive the proof that it was opened with, nor
/// the trust that the proof was checked against: no new sessions then.
async fn next(
    pod: &Pod,
    connection: &mut Connection,
    caller: &Caller,
    config: &Arc<ServerConfig>,
) -> Next {
    let idle = pod.shared.config.native.idle;
    // The client closes what is idle; this is for those that do not.
    let deadline = Instant::now() + idle + idle / 4;
    let identities = &pod.shared.identities;
    let mut certificates = identities.subscribe();
    loop {
        certificates.borrow_and_update();
        let workload = &pod.workload.identity;
        let current = identity::is_current_server(identities, workload, Wire::Native, config);
        if !current || has_expired(pod, caller) || pod.stop.is_cancelled() {
            return Next::Close;
        }
        tokio::select! {
            incoming = poll_fn(|cx| connection.poll_next(cx, 0)) => {
                // It may have expired while nobody asked.
                return match incoming {
                    Ok(Incoming::Control(Control::Open(_))) if has_expired(pod, caller) => {
                        Next::Close
                    }
                    Ok(Incoming::Control(Control::Open(open))) => Next::Open(open),
                    Ok(Incoming::Control(Control::Close { .. })) => Next::Gone(WireError::Closed),
                    Ok(_) => Next::Gone(FrameError::Unexpected.into()),
                    Err(error) => Next::Gone(error),
                };
            }
            _ = certificates.changed() => {}
            () = pod.stop.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => return Next::Close,
        }
    }
}

/// One session, asked for by a peer.
struct Incomer<'a> {
    pod: &'a Arc<Pod>,
    host: &'a Host,
    caller: &'a Caller,
    local: SocketAddr,
}

impl Incomer<'_> {
    /// Serves the session to its end; gives the connection back if it can carry another.
    async fn serve(&self, connection: Connection, open: Open) -> Option<Connection> {
        let pod = self.pod;
        let _open = pod::Open::new(&pod.inbound_open);
        let _gauge = pod.shared.metrics.connection(Direction::Inbound);
        let client = self.client(open);
        // From before the decision, so that no change of policy is missed.
        let mut policies = pod.policy.subscribe();
        // Boxed for the same reason as on the way out; what is reported comes out of it, since it would
        // otherwise have a place here for as long as the session lasts.
        let (info, admitted) = Box::pin(self.set_up(open, client, &mut policies)).await;
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => {
                self.host.finish(connection, refusal(&failure));
                record::inbound_refused(pod, info, &failure);
                return None;
            }
        };
        let mut stream = NativeStream::new(connection, self.host.clone());
        let Admitted::Delivered(mut server) = admitted else {
            return Box::pin(self.judge(stream, info, client, policies)).await;
        };
        let record = pod.shared.telemetry.open(info);
        let attempt = attempt(pod, self.caller, open.destination);
        let reason = tokio::select! {
            ending = async {
                match stream.accept().await {
                    Ok(()) => forward(&mut stream, &mut server, record.counters()).await,
                    Err(ending) => ending,
                }
            } => ending.close_reason(),
            // Dropping both streams resets them.
            denial = revoked(&attempt, &mut policies, &pod.shared.metrics) => late(&denial),
        };
        record.close(reason);
        stream.into_idle()
    }

    /// Serves a session whose requests are judged.
    async fn judge(
        &self,
        mut stream: NativeStream,
        info: ConnectionInfo,
        client: SocketAddr,
        policies: PolicyWatch,
    ) -> Option<Connection> {
        if let Err(ending) = stream.accept().await {
            self.pod.shared.telemetry.denied(&Denied { info, reason: ending.close_reason() });
            return None;
        }
        let visit = visit(self.pod, self.caller, client, self.local);
        let (give_back, given_back) = oneshot::channel();
        let over = move |stream| {
            // Nobody waits for it any more.
            let _ = give_back.send(stream);
        };
        Box::pin(guard::serve(visit, info, stream, policies, over)).await;
        // A request that was upgraded has the stream for longer. Its peer asks for the next session as soon as both ends
        // are done with this one.
        given_back.await.ok().and_then(NativeStream::into_idle)
    }

    /// The client as the source's agent names it. Believed only as far as the source can prove: the
    /// address that the connection comes from is the client's own pod.
    fn client(&self, open: Open) -> SocketAddr {
        let peer = self.caller.address;
        if open.client.ip() == peer.ip() { open.client } else { peer }
    }

    /// Who and what the session is, and whether the application is connected.
    async fn set_up(
        &self,
        open: Open,
        client: SocketAddr,
        policies: &mut PolicyWatch,
    ) -> (ConnectionInfo, Result<Admitted, Failure>) {
        let destination = Some(open.destination);
        let info = record::inbound(self.pod, self.caller, client, destination, Wire::Native);
        let admitted = self.connect_application(open, client, policies).await;
        (info, admitted)
    }

    async fn connect_application(
        &self,
        open: Open,
        client: SocketAddr,
        policies: &mut PolicyWatch,
    ) -> Result<Admitted, Failure> {
        let (pod, destination) = (self.pod, open.destination);
        if destination != self.local {
            return Err(Failure::WrongDestination { to: destination });
        }
        deliver::check(pod, destination)?;
        let policy = policies.borrow_and_update().clone();
        let attempt = attempt(pod, self.caller, destination);
        let admission = authorize(&attempt, policy.as_deref(), &pod.shared.metrics)
            .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })?;
        let judged = admission == Admission::Judge;
        pod.has_room(if judged { Carried::Requests } else { Carried::Bytes })?;
        match admission {
            Admission::Judge => Ok(Admitted::Judged),
            Admission::Deliver => {
                deliver::deliver(pod, client, destination).await.map(Admitted::Delivered)
            }
        }
    }
}

/// A failure, as the peer is told.
fn refusal(failure: &Failure) -> Control {
    let status = failure.status().as_u16();
    Control::Refuse(Refusal { status, reason: failure.reason().to_owned() })
}
