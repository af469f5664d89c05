//! `pods/portforward` as API servers and kubelets speak it over WebSockets (`v4.channel.k8s.io`): of each port a channel
//! of bytes and one of errors, both of which begin with the port's number.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{
    ApiServer, Shared,
    answer::{self, Body, Refusal},
    call::Call,
};
use crate::netns::Netns;

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Where a port of a pod is in truth.
#[derive(Clone, Debug)]
pub struct Door {
    /// The network namespace; none for the one that this runs in.
    pub netns: Option<Netns>,
    /// The address there.
    pub address: SocketAddr,
}

impl Door {
    /// One in this network namespace.
    pub fn here(address: SocketAddr) -> Self {
        Self { netns: None, address }
    }

    async fn open(self) -> std::io::Result<TcpStream> {
        let Self { netns, address } = self;
        let Some(netns) = netns else { return TcpStream::connect(address).await };
        let connect = move || netns.run(|| std::net::TcpStream::connect(address));
        let connected =
            tokio::task::spawn_blocking(connect).await.map_err(std::io::Error::other)?;
        let stream = connected.map_err(std::io::Error::other)??;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}

/// Whether a call is about this at all.
pub(super) fn is_meant(call: &Call) -> bool {
    call.plural == "pods" && call.subresource == "portforward"
}

/// Switches protocols, if a hook knows the pod.
pub(super) async fn start(
    shared: &Arc<Shared>,
    call: Call,
    headers: &HeaderMap,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let text = |name| headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let (Some(key), true) = (
        text(header::SEC_WEBSOCKET_KEY),
        protocols.split(',').any(|protocol| protocol.trim() == PROTOCOL),
    ) else {
        return Err(Refusal::bad("Upgrade request required"));
    };
    let port: u16 = call.param("ports").parse().map_err(|_| Refusal::bad("one port, please"))?;
    let accept = derive_accept_key(key.as_bytes());
    let shared = Arc::clone(shared);
    let asked = tokio::task::spawn_blocking(move || {
        let server = ApiServer::of(&shared);
        let hooks = shared.hooks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        hooks.iter().find_map(|hook| hook.forward(&server, &call, port))
    });
    let door =
        asked.await.map_err(|_| Refusal::new(500, "InternalError", "a hook has panicked"))?;
    let door = door.unwrap_or_else(|| Err(Refusal::no_such_page()))?;
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            serve(upgraded, door, port).await;
        }
    });
    let mut response = Response::new(answer::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&accept).map_err(|_| Refusal::bad("this is no key"))?;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

/// Carries bytes until one end has no more.
async fn serve(upgraded: Upgraded, door: Door, port: u16) {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (mut to_client, mut from_client) = socket.split();
    for channel in [DATA, ERROR] {
        if to_client.send(frame(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let pod = match door.open().await {
        Ok(pod) => pod,
        Err(error) => {
            let words = format!("an error occurred forwarding {port}: {error}");
            let _ = to_client.send(frame(ERROR, words.as_bytes())).await;
            let _ = to_client.close().await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = pod.into_split();
    let inwards = async {
        while let Some(Ok(message)) = from_client.next().await {
            let written = match message {
                Message::Binary(bytes) if bytes.first() == Some(&DATA) => {
                    to_pod.write_all(&bytes[1..]).await
                }
                Message::Close(_) => return,
                _ => Ok(()),
            };
            if written.is_err() {
                return;
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_pod.read(&mut buffer).await {
            if to_client.send(frame(DATA, &buffer[..read])).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}
