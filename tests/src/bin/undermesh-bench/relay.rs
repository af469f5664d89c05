//! The least that a proxy does: one task a connection copies bytes both ways, on one thread a
//! processor. No TLS, no parsing, no log.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// Where to listen, and where to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    listen: SocketAddr,
    to: SocketAddr,
}

/// Reads `LISTEN=TO`.
pub(crate) fn pair(text: &str) -> Result<Pair> {
    let (listen, to) = text.split_once('=').context("it is LISTEN=TO")?;
    Ok(Pair { listen: listen.parse()?, to: to.parse()? })
}

/// Relays until it is killed.
pub(crate) fn run(pairs: &[Pair]) -> Result<()> {
    let runtime = Builder::new_multi_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for Pair { listen, to } in pairs.iter().copied() {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
            tasks.push(tokio::spawn(accept(socket.listen(BACKLOG)?, to)));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, to: SocketAddr) -> Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        // How a connection ends is seen by both ends of it.
        tokio::spawn(async move { drop(relay(client, to).await) });
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr) -> Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_two_addresses() {
        let found = pair("127.0.0.1:1=10.0.0.1:2").unwrap();
        assert_eq!((found.listen.port(), found.to.port()), (1, 2));
        assert!(pair("127.0.0.1:1").is_err());
        assert!(pair("127.0.0.1:1=here").is_err());
    }
}
