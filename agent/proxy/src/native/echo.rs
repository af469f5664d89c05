//! Both ends of one connection of the native wire, for `benches`: what is sent there comes back.

use std::{future::poll_fn, io, sync::Arc};

use bytes::Bytes;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    connection::{Connection, Incoming, WireError},
    io::Io,
};

/// A connection over loopback, as two agents have it once they have shaken hands.
pub struct Echo {
    client: Connection,
    server: Connection,
}

impl Echo {
    /// Connects, and shakes hands.
    ///
    /// # Errors
    /// Where either fails.
    pub async fn connect(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (near, far) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
        for tcp in [&near, &far.0] {
            tcp.set_nodelay(true)?;
        }
        let name = ServerName::IpAddress(address.ip().into());
        let (near, far) = tokio::try_join!(
            TlsConnector::from(client).connect(name, Io::new(near)),
            TlsAcceptor::from(server).accept(Io::new(far.0)),
        )?;
        Ok(Self {
            client: Connection::new(TlsStream::from(near)),
            server: Connection::new(TlsStream::from(far)),
        })
    }

    /// Sends `payload` in DATA frames, has the other end send what it gets, and returns what comes back.
    ///
    /// # Errors
    /// Where the connection breaks, or brings another frame.
    pub async fn there_and_back(&mut self, payload: Bytes) -> io::Result<Vec<Bytes>> {
        let length = payload.len();
        let (client, server) = (&mut self.client, &mut self.server);
        let (_, there) = tokio::try_join!(send(client, vec![payload]), receive(server, length))?;
        let (_, back) = tokio::try_join!(send(server, there), receive(client, length))?;
        Ok(back)
    }
}

async fn send(connection: &mut Connection, pieces: Vec<Bytes>) -> io::Result<()> {
    for mut piece in pieces {
        while !piece.is_empty() {
            let sent = poll_fn(|cx| connection.poll_send_data(cx, &piece)).await?;
            let _ = piece.split_to(sent);
        }
    }
    poll_fn(|cx| connection.poll_flush(cx)).await
}

async fn receive(connection: &mut Connection, length: usize) -> io::Result<Vec<Bytes>> {
    let (mut pieces, mut left) = (Vec::new(), length);
    while left > 0 {
        match poll_fn(|cx| connection.poll_next(cx, usize::MAX)).await {
            Ok(Incoming::Data(data)) => {
                left = left.saturating_sub(data.len());
                pieces.push(data);
            }
            Ok(Incoming::Control(_)) => return Err(io::ErrorKind::InvalidData.into()),
            Err(WireError::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(pieces)
}
