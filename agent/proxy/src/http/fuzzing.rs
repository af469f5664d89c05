//! What a client of HTTP sends, for `tests/fuzz`; what routes make of it, for `benches`.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Uri, request::Parts};
use hyper::server::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use undermesh_snapshot::traffic::{ClusterSpec, CompiledRoute};

use super::{
    framing::{Framing, Step},
    head::Head,
    requests, rewrite,
    sniff::{self, Look, Spoken},
    strict,
    way::Way,
};
use crate::config::HeadLimits;

/// Whether bytes passed, and where requests ended in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Bytes before each request's end.
    pub ends: Vec<usize>,
    /// Bytes that were found to be in order.
    pub passed: usize,
    /// Why the next ones were not.
    pub refused: Option<&'static str>,
    /// The connection is nobody's business any more, from there on.
    pub raw: bool,
}

/// Follows the requests in `bytes`, which come in pieces of these lengths. No upgrade succeeds.
pub fn follow(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Followed {
    let mut framing = Framing::new(HeadLimits::default());
    let mut followed = Followed::default();
    let mut there = 0;
    while there < bytes.len() {
        there = bytes.len().min(there.saturating_add(piece().max(1)));
        while followed.passed < there {
            if framing.is_undecided() {
                framing.decide(false);
            }
            let before = followed.passed;
            let held = &bytes[before..there];
            let empty_line = framing.is_between_requests() && held.starts_with(b"\r\n");
            match framing.unseen() {
                Some(unseen) => {
                    let count = held.len().min(usize::try_from(unseen).unwrap_or(usize::MAX));
                    framing.passed(count as u64);
                    followed.passed += count;
                }
                None => match framing.look(held) {
                    Step::Pass(count) => followed.passed += count,
                    Step::More => break,
                    Step::Refuse(why) => {
                        followed.refused = Some(why);
                        return followed;
                    }
                },
            }
            if framing.unseen() == Some(u64::MAX) {
                followed.passed = before;
                followed.raw = true;
                return followed;
            }
            if !empty_line && (framing.is_between_requests() || framing.is_undecided()) {
                followed.ends.push(followed.passed);
            }
        }
    }
    followed
}

/// What the endpoint has made of requests that wanted an upgrade.
#[derive(Clone, Debug, Default)]
pub struct Switch(strict::Switch);

impl Switch {
    /// One of them has been answered.
    pub fn decide(&self, switched: bool) {
        self.0.decide(switched);
    }
}

/// A client's stream that is read strictly.
pub struct Strict<S>(strict::Strict<S>);

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Reads `stream`.
    pub fn new(stream: S, switch: &Switch) -> Self {
        Self(strict::Strict::new(stream, switch.0.clone(), HeadLimits::default()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// hyper, as it serves HTTP/1 here.
pub fn http1_builder() -> http1::Builder {
    requests::http1_builder(HeadLimits::default())
}

/// A head that is ready to be routed; `None` where the request is answered at once.
pub fn head(parts: Parts, dialled: SocketAddr) -> Option<Parts> {
    Head::new(parts, dialled).ok().map(|head| head.parts)
}

/// A head that a route has changed; `path_len` bytes of its path are what the route's match was about.
pub fn changed(
    parts: Parts,
    dialled: SocketAddr,
    route: &CompiledRoute,
    path_len: usize,
    spec: &Arc<ClusterSpec>,
) -> Option<Parts> {
    let mut head = Head::new(parts, dialled).ok()?;
    Way { route: Some(route), path_len, spec, edits: None }.change(&mut head);
    Some(head.parts)
}

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.
    Http1,
    /// HTTP/2 in clear.
    Http2,
    /// TLS, to a server of this name.
    Tls(Option<String>),
    /// Anything else.
    Other,
}

/// What the first bytes of a client say; `None` while they do not say it yet.
pub fn sniff(bytes: &[u8], version_only: bool) -> Option<Protocol> {
    let look = if version_only { Look::ForVersion } else { Look::ForAll };
    sniff::classify(bytes, look).map(|spoken| match spoken {
        Spoken::Http1 => Protocol::Http1,
        Spoken::Http2 => Protocol::Http2,
        Spoken::Tls(name) => Protocol::Tls(name),
        Spoken::Other => Protocol::Other,
    })
}

/// A target with its path rewritten, as far as that is a path.
pub fn rewritten(
    rewrite: &undermesh_model::traffic::PathRewrite,
    mut target: Uri,
    matched: usize,
) -> Uri {
    let path = rewrite::new_path(rewrite, target.path(), matched);
    rewrite::set_path(&mut target, path);
    target
}
