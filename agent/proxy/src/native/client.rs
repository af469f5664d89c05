//! Opens a session: OPEN, what the application has said already, and the wait for the answer.

use std::{
    future::poll_fn,
    io::IoSlice,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http::StatusCode;

use super::{
    connection::{Connection, Incoming, WireError},
    dial::{DialError, Dialled, Remains},
    frame::{Control, FrameError, Kind, Refusal, header},
    open::Open,
    pool::Pool,
    stream::{Host, NativeStream},
};
use crate::{
    duplex::{Duplex, Socket},
    error::{Failure, Side},
    follow::note,
    metrics::{Direction, Origin},
    pod::Pod,
    terminate::tls_failure,
    tunnel::TunnelKey,
};

/// Most that is sent of the application's bytes before the answer is there.
const MAX_EARLY: usize = 16 << 10;

/// An open session, and what is left of its connection when it is over.
pub(crate) struct Session {
    pub(crate) stream: NativeStream,
    /// Bytes of the application that have been sent already.
    pub(crate) early: u64,
    key: TunnelKey,
    rest: Remains,
}

impl Session {
    /// The stream, and what gives its connection back once it has ended.
    pub(crate) fn split(self) -> (NativeStream, impl FnOnce(NativeStream, &Pool) + Send) {
        let Self { stream, key, rest, .. } = self;
        let give_back = move |stream: NativeStream, pool: &Pool| {
            if let Some(connection) = stream.into_idle() {
                pool.put_back(&key, rest.with(connection));
            }
        };
        (stream, give_back)
    }

    /// Gives the connection back to the pool if it can carry another session.
    pub(crate) fn finish(self, pool: &Pool) {
        let (stream, give_back) = self.split();
        give_back(stream, pool);
    }
}

/// How an attempt to open a session has failed.
struct Refused {
    failure: Failure,
    /// The connection was no longer served, so that another one may do: nobody has looked at the
    /// session, or at least at no byte of the application.
    unseen: bool,
}

/// Opens a session to `key` for a client at `from`; where `client` is given, its bytes go along.
pub(crate) async fn open(
    pod: &Pod,
    key: &TunnelKey,
    from: SocketAddr,
    mut client: Option<&mut Socket>,
) -> Result<Session, DialError> {
    let open = Open { client: from, destination: key.address };
    let (dialled, origin) = pod.native.take(key).await?;
    let metrics = &pod.shared.metrics.native;
    metrics.record_session(origin);
    note("pool", || match origin {
        Origin::Fresh => "miss: a new connection".to_owned(),
        _ => "hit: a connection that was idle".to_owned(),
    });
    let refused = match ask(pod, key, dialled, open, client.as_deref_mut()).await {
        Ok(session) => return Ok(session),
        Err(refused) => refused,
    };
    if origin == Origin::Fresh || !refused.unseen {
        return Err(DialError::Failed(refused.failure));
    }
    // An idle connection may have died unnoticed; that is no reason to fail the application.
    metrics.record_retry();
    let dialled = pod.native.fresh(key).await?;
    metrics.record_session(Origin::Fresh);
    let asked = ask(pod, key, dialled, open, client).await;
    asked.map_err(|refused| DialError::Failed(refused.failure))
}

/// Asks for a session on one connection.
async fn ask(
    pod: &Pod,
    key: &TunnelKey,
    dialled: Dialled,
    open: Open,
    mut client: Option<&mut Socket>,
) -> Result<Session, Refused> {
    let (mut connection, rest) = dialled.split();
    connection.sessions = connection.sessions.wrapping_add(1);
    connection.in_session = true;
    let mut request = Request::new(open);
    let answer = poll_fn(|cx| request.poll(cx, &mut connection, client.as_deref_mut()));
    let answer = tokio::time::timeout(pod.shared.config.request_timeout, answer).await;
    let host = host(pod);
    let error = match answer {
        Ok(Ok(Control::Accept)) => {
            let early = request.early.len() as u64;
            note("session", || format!("{} has accepted", key.identity));
            let stream = NativeStream::new(connection, host);
            return Ok(Session { stream, early, key: key.clone(), rest });
        }
        Ok(Ok(Control::Refuse(refusal))) => {
            connection.in_session = false;
            Asked::Refused(refusal)
        }
        // Sessions are counted on both ends; a peer that has taken up fewer has not seen this one.
        Ok(Ok(Control::Close { sessions })) if sessions < connection.sessions => {
            connection.in_session = false;
            Asked::Unseen
        }
        Ok(Ok(_)) => Asked::Lost(FrameError::Unexpected.into()),
        Ok(Err(error)) => Asked::Lost(error),
        Err(_) => Asked::Late,
    };
    let early = request.early.freeze();
    let exposed = !early.is_empty() && matches!(error, Asked::Lost(_) | Asked::Late);
    if let Some(client) = client {
        client.unread(early);
    }
    Err(refused(&host, key, error, exposed))
}

/// What came instead of an ACCEPT.
enum Asked {
    Refused(Refusal),
    Unseen,
    Lost(WireError),
    Late,
}

fn refused(host: &Host, key: &TunnelKey, asked: Asked, exposed: bool) -> Refused {
    let to = key.address;
    let mut unseen = false;
    let failure = match asked {
        Asked::Refused(Refusal { status, reason }) => Failure::Refused {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            detail: if reason.is_empty() { "no reason given".into() } else { reason.into() },
        },
        Asked::Unseen => {
            unseen = true;
            Failure::TunnelLost { to, detail: "the peer closes its connections".into() }
        }
        Asked::Lost(error) => {
            host.note(&error);
            unseen = !exposed && error.tls().is_none();
            match error.tls() {
                Some(error) => tls_failure(to, error, Side::Upstream),
                None => Failure::TunnelLost { to, detail: error.to_string().into() },
            }
        }
        Asked::Late => Failure::RequestTimeout { to },
    };
    let failure = if exposed { Failure::Exposed(Box::new(failure)) } else { failure };
    Refused { failure, unseen }
}

/// What sessions of `pod`'s own need at their end.
fn host(pod: &Pod) -> Host {
    Host {
        shared: Arc::clone(&pod.shared),
        tasks: pod.tasks.clone(),
        kill: pod.kill.clone(),
        direction: Direction::Outbound,
    }
}

/// An OPEN under way.
struct Request {
    open: Open,
    /// OPEN was sent.
    opened: bool,
    /// Bytes of the application that go along, kept until an answer says that nobody needs them again.
    early: BytesMut,
    /// How many of them were sent.
    sent: usize,
    /// No more of them: there will be none, or whoever forwards has to find out.
    dry: bool,
}

impl Request {
    fn new(open: Open) -> Self {
        Self { open, opened: false, early: BytesMut::new(), sent: 0, dry: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        mut client: Option<&mut Socket>,
    ) -> Poll<Result<Control, WireError>> {
        ready!(self.poll_open(cx, connection, client.as_deref_mut()))?;
        loop {
            match connection.poll_next(cx, 0) {
                Poll::Ready(Ok(Incoming::Control(control))) => return Poll::Ready(Ok(control)),
                Poll::Ready(Ok(Incoming::Data(_))) => {
                    return Poll::Ready(Err(FrameError::Unexpected.into()));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            ready!(connection.poll_flush(cx))?;
            if self.sent == self.early.len() && !self.read(cx, client.as_deref_mut()) {
                return Poll::Pending;
            }
            self.sent += ready!(connection.poll_send_data(cx, &self.early[self.sent..]))?;
        }
    }

    /// Sends OPEN, in one record with what the application has said already.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        client: Option<&mut Socket>,
    ) -> Poll<Result<(), WireError>> {
        if self.opened {
            return Poll::Ready(Ok(()));
        }
        let frame = Control::Open(self.open).encode();
        if self.early.is_empty() && !self.read(cx, client) {
            ready!(connection.poll_send(cx, &[IoSlice::new(&frame)]))?;
        } else {
            let header = header(Kind::Data, self.early.len());
            let parts = [IoSlice::new(&frame), IoSlice::new(&header), IoSlice::new(&self.early)];
            ready!(connection.poll_send(cx, &parts))?;
            self.sent = self.early.len();
        }
        self.opened = true;
        Poll::Ready(Ok(()))
    }

    /// Takes more of the application's bytes along, if there are any and there is room.
    fn read(&mut self, cx: &mut Context<'_>, client: Option<&mut Socket>) -> bool {
        let Some(client) = client else { return false };
        let room = MAX_EARLY - self.early.len();
        if self.dry || room == 0 || client.poll_readable(cx).is_pending() {
            return false;
        }
        match client.poll_read(cx, room) {
            Poll::Ready(Ok(Some(bytes))) => {
                self.early.extend_from_slice(&bytes);
                true
            }
            // Whoever forwards meets the end or the error again.
            Poll::Ready(_) => {
                self.dry = true;
                false
            }
            Poll::Pending => false,
        }
    }
}
