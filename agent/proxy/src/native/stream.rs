//! A session of the native wire as a [`Duplex`].

use std::{
    future::Future,
    io,
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{Connection, Incoming, WireError},
    frame::{Control, FrameError, MAX_DATA},
};
use crate::{
    duplex::{Broken, Duplex, broken},
    forward::{End, Ending},
    metrics::Direction,
    proxy::Shared,
};

/// What the end of a session needs, which comes when nobody waits for it.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: TaskTracker,
    pub(crate) kill: CancellationToken,
    pub(crate) direction: Direction,
}

impl Host {
    /// Counts what was wrong about a peer's bytes.
    pub(crate) fn note(&self, error: &WireError) {
        tracing::debug!(%error, direction = ?self.direction, "native connection broke");
        if let WireError::Frame(error) = error {
            self.shared.metrics.native.record_frame_error(self.direction, error.code());
        }
    }

    /// Says one last thing on a connection without keeping anybody waiting.
    pub(crate) fn finish(&self, connection: Connection, last: Control) {
        let kill = self.kill.clone();
        let task = async move {
            tokio::select! {
                () = connection.finish(&last) => {}
                () = kill.cancelled() => {}
            }
        };
        self.tasks.spawn_on(task, &self.shared.runtime);
    }
}

/// Both halves of an open session.
pub(crate) struct NativeStream {
    /// Gone when the session is over.
    connection: Option<Connection>,
    host: Host,
    /// The peer has sent END.
    recv_ended: bool,
    /// END was sent.
    send_ended: bool,
    /// The peer has said that no session follows.
    closing: bool,
    /// Nobody is there to be told of a reset.
    lost: bool,
    ended: bool,
    /// Waits for an error while nobody reads; made on first use.
    alarm: Option<Pin<Box<dyn Future<Output = Broken> + Send>>>,
}

impl NativeStream {
    /// A session that was accepted.
    pub(crate) fn new(connection: Connection, host: Host) -> Self {
        Self {
            connection: Some(connection),
            host,
            recv_ended: false,
            send_ended: false,
            closing: false,
            lost: false,
            ended: false,
            alarm: None,
        }
    }

    /// Tells the peer that the application is connected.
    pub(crate) async fn accept(&mut self) -> Result<(), Ending> {
        let Some(connection) = &mut self.connection else {
            return Err(Ending::Broken(End::Client, Broken::TunnelLost));
        };
        let accepted = connection.send(&Control::Accept).await;
        accepted.map_err(|error| Ending::Broken(End::Client, self.lost_io(error)))
    }

    /// The connection, ready for another session, if this one has ended as it should.
    pub(crate) fn into_idle(mut self) -> Option<Connection> {
        if !(self.ended && self.recv_ended && self.send_ended) || self.closing {
            return None;
        }
        let mut connection = self.connection.take()?;
        connection.in_session = false;
        Some(connection)
    }

    /// What a failed read or write means for the session.
    fn lost(&mut self, error: WireError) -> Broken {
        self.lost = !matches!(error, WireError::Frame(_));
        self.host.note(&error);
        Broken::TunnelLost
    }

    fn lost_io(&mut self, error: io::Error) -> Broken {
        self.lost(error.into())
    }

    fn poll_connection(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Incoming, Broken>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(Broken::TunnelLost));
        };
        loop {
            return Poll::Ready(match ready!(connection.poll_next(cx, limit)) {
                Ok(Incoming::Control(Control::Close { .. })) => {
                    self.closing = true;
                    continue;
                }
                Ok(Incoming::Control(Control::Reset)) => {
                    self.lost = true;
                    Err(Broken::Reset)
                }
                Ok(incoming) => Ok(incoming),
                Err(error) => Err(self.lost(error)),
            });
        }
    }

    fn unexpected(&mut self) -> Broken {
        self.lost(FrameError::Unexpected.into())
    }
}

impl Duplex for NativeStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.as_mut().map_or(Poll::Ready(()), |connection| connection.poll_readable(cx))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        Poll::Ready(match ready!(self.poll_connection(cx, limit.max(1)))? {
            Incoming::Data(bytes) => Ok(Some(bytes)),
            Incoming::Control(Control::End) => {
                self.recv_ended = true;
                Ok(None)
            }
            Incoming::Control(_) => Err(self.unexpected()),
        })
    }

    /// Nothing is read that cannot leave at once: this is the back-pressure of the slow reader.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(MAX_DATA))
    }

    fn release_capacity(&mut self) {}

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(Broken::TunnelLost));
        };
        let sent = ready!(connection.poll_send_data(cx, bytes));
        Poll::Ready(sent.map(|count| bytes.advance(count)).map_err(|error| self.lost_io(error)))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Err(Broken::TunnelLost));
        };
        let flushed = ready!(connection.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.lost_io(error)))
    }

    fn consumed(&mut self, _count: usize) {}

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Some(connection) = self.connection.as_mut().filter(|_| !self.send_ended) {
            let frame = Control::End.encode();
            let sent = ready!(connection.poll_send(cx, &[IoSlice::new(&frame)]));
            sent.map_err(|error| self.lost_io(error))?;
            self.send_ended = true;
        }
        self.poll_flush(cx)
    }

    /// Once the peer has ended its half, it can only break off, and says so in a frame. Before, such
    /// a frame may be behind data that nobody takes: then it gives the connection up as well, which
    /// the kernel tells.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.recv_ended {
            return Poll::Ready(match ready!(self.poll_connection(cx, 0)) {
                Ok(_) => self.unexpected(),
                Err(cause) => cause,
            });
        }
        let Some(connection) = &self.connection else { return Poll::Ready(Broken::TunnelLost) };
        let alarm =
            self.alarm.get_or_insert_with(|| Box::pin(broken(Arc::clone(connection.tcp()))));
        ready!(alarm.as_mut().poll(cx));
        self.alarm = None;
        self.lost = true;
        Poll::Ready(Broken::TunnelLost)
    }

    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for NativeStream {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            if self.ended || self.lost {
                connection.in_session = false;
            } else {
                self.host.finish(connection, Control::Reset);
            }
        }
    }
}
