//! Step *connect*: a TCP connection out of a pod's network namespace.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

use crate::{ProxyConfig, config::Keepalive, error::Failure, pod::PodSockets};

/// Unanswered probes after which the kernel gives a connection up.
const PROBES: u32 = 3;

/// Who a delivered connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    /// The address that it comes from, inside the pod.
    pub(crate) source: IpAddr,
    /// The client that the application should see.
    pub(crate) client: SocketAddr,
}

/// Connects to `to`, as a delivery where one is given, within the configured time.
pub(crate) async fn connect(
    sockets: &dyn PodSockets,
    delivery: Option<Delivery>,
    to: SocketAddr,
    config: &ProxyConfig,
) -> Result<TcpStream, Failure> {
    let socket = || {
        let socket = sockets.stream(to.ip(), delivery.map(|delivery| delivery.client))?;
        if let Some(delivery) = delivery {
            socket.bind(&SocketAddr::new(delivery.source, 0).into())?;
        }
        Ok(socket)
    };
    let result = match socket() {
        Ok(socket) => connect_socket(socket, to, config).await,
        Err(error) => Err(error),
    };
    result.map_err(|error| failure(to, &error))
}

/// Connects a socket within the configured time.
pub(crate) async fn connect_socket(
    socket: Socket,
    to: SocketAddr,
    config: &ProxyConfig,
) -> io::Result<TcpStream> {
    let attempt = async {
        let stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
        tune(&stream, config.keepalive)?;
        Ok(stream)
    };
    tokio::time::timeout(config.connect_timeout, attempt)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

pub(crate) fn failure(to: SocketAddr, error: &io::Error) -> Failure {
    tracing::debug!(%to, %error, "connect failed");
    Failure::Connect { to, kind: error.kind() }
}

/// Sets what every connection of the proxy needs: no delay for small writes (the application
/// decided to send them), and probes that end half-open connections of vanished peers.
pub(crate) fn tune(stream: &TcpStream, keepalive: Keepalive) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let at_least_a_second = |time: Duration| time.max(Duration::from_secs(1));
    let probes = TcpKeepalive::new()
        // Applications may sleep; this is for peers that are gone, not for quick detection.
        .with_time(at_least_a_second(keepalive.interval * 6))
        .with_interval(at_least_a_second(keepalive.interval))
        .with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}
