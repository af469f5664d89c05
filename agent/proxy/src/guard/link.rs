//! The application's end of a judged connection: one connection of its own for each of its client's, so that
//! the application sees who its client is.

use ::http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::{Delivery, Visit};
use crate::{
    deliver,
    duplex::{Socket, Stream},
    error::Failure,
    fair::Inherited,
    http::LocalReply,
    upstream::{Body, in_http1, in_http2, repeat},
};

/// How often a connection may turn out to be dead before anything was written to it.
const ROUNDS: usize = 3;

/// Sends the requests of one client.
pub(super) struct Link {
    http2: bool,
    /// Made when the first request may pass.
    sender: Mutex<Option<Sender>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A connection for one request.
struct Lent {
    sender: Sender,
    /// It was kept open after another one, and the application may be closing it.
    reused: bool,
}

impl Link {
    pub(super) fn new(http2: bool) -> Self {
        Self { http2, sender: Mutex::new(None) }
    }

    /// Sends one request. `upgrade` if it asks for one, which HTTP/2 cannot carry.
    pub(super) async fn send(
        &self,
        visit: &Visit,
        request: Request<Body>,
        upgrade: bool,
    ) -> Result<Response<Incoming>, LocalReply> {
        let http2 = self.http2 && !upgrade;
        let mut request = if http2 { in_http2(request) } else { in_http1(request) };
        let mut may_repeat = true;
        for _ in 0..ROUNDS {
            let Lent { sender, reused } = self.lend(visit, http2).await?;
            let repeats = reused && may_repeat && repeat::is_allowed(&request);
            let again = repeats.then(|| repeat::copy(&request));
            let sent = match sender {
                Sender::Http2(mut sender) => sender.try_send_request(request).await,
                Sender::Http1(mut sender) => {
                    let sent = sender.try_send_request(request).await;
                    if sent.is_ok() && !upgrade && !self.http2 {
                        *self.sender.lock().await = Some(Sender::Http1(sender));
                    }
                    sent
                }
            };
            request = match sent {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    // Nothing of it was written.
                    Some(request) => request,
                    None => {
                        may_repeat = false;
                        again
                            .filter(|_| repeat::was_closing(error.error()))
                            .ok_or_else(|| LocalReply::reset(error.into_error().to_string()))?
                    }
                },
            };
        }
        Err(LocalReply::reset("the application closes every connection at once".to_owned()))
    }

    /// A connection that works, as far as one can tell. One of HTTP/1.1 is taken away for the request.
    async fn lend(&self, visit: &Visit, http2: bool) -> Result<Lent, LocalReply> {
        let mut kept = self.sender.lock().await;
        match kept.take() {
            Some(Sender::Http2(sender)) if http2 && !sender.is_closed() => {
                *kept = Some(Sender::Http2(sender.clone()));
                return Ok(Lent { sender: Sender::Http2(sender), reused: true });
            }
            Some(Sender::Http1(mut sender)) if !http2 => {
                // It waits for the end of the former answer.
                if sender.ready().await.is_ok() {
                    return Ok(Lent { sender: Sender::Http1(sender), reused: true });
                }
            }
            other => *kept = other.filter(|_| self.http2 && !http2),
        }
        let sender = visit.open(http2).await?;
        if let Sender::Http2(sender) = &sender {
            *kept = Some(Sender::Http2(sender.clone()));
        }
        Ok(Lent { sender, reused: false })
    }
}

impl Visit {
    /// Connects to the application.
    pub(super) async fn connect(&self) -> Result<Socket, Failure> {
        match self.delivery {
            Delivery::AsSetUp => deliver::deliver(&self.pod, self.client, self.destination).await,
            Delivery::Translated => {
                deliver::translated(&self.pod, self.client, self.destination).await
            }
        }
    }

    async fn open(&self, http2: bool) -> Result<Sender, LocalReply> {
        let failed =
            |error: &hyper::Error| LocalReply::not_connected("connect_failed", error.to_string());
        let connected = self.connect().await;
        let socket = connected.map_err(|failure| LocalReply::connect_failure(&failure))?;
        let io = TokioIo::new(Stream::new(socket));
        if http2 {
            let builder = http2::Builder::new(Inherited);
            let (sender, driver) = builder.handshake(io).await.map_err(|error| failed(&error))?;
            self.drive(driver);
            return Ok(Sender::Http2(sender));
        }
        let (sender, driver) = http1::handshake(io).await.map_err(|error| failed(&error))?;
        self.drive(driver.with_upgrades());
        Ok(Sender::Http1(sender))
    }

    fn drive(&self, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let pod = std::sync::Arc::clone(&self.pod);
        let task = async move {
            tokio::select! {
                ended = driver => if let Err(error) = ended {
                    tracing::debug!(%error, "connection to an application ended");
                },
                () = pod.kill.cancelled() => {}
            }
        };
        self.pod.spawn(task);
    }
}
