//! One question to an agent's metrics port, with bounds on time and length.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::client;

/// Longest that an agent may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MOST: u64 = 32 << 20;

/// A page's text.
///
/// # Errors
/// In words: it is not there, it is late, it refuses.
pub(super) async fn page(agent: SocketAddr, path: &str) -> Result<String, String> {
    let asked = tokio::time::timeout(PATIENCE, read(agent, path)).await;
    let answer = asked
        .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))?
        .map_err(|error| error.to_string())?;
    match client::parts(&answer) {
        Some(("200", body)) => Ok(body.to_owned()),
        Some((code, _)) => Err(format!("{path} answers {code}")),
        None => Err("it does not speak HTTP".to_owned()),
    }
}

async fn read(agent: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(agent).await?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {agent}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(MOST).read_to_end(&mut bytes).await?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}
