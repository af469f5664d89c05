//! Fetches a small document over HTTP or HTTPS, from the node.

use std::{net::SocketAddr, time::Duration};

use ::http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST, USER_AGENT},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use undermesh_model::traffic::{ClientTls, TlsMode};

use crate::{
    duplex::Socket,
    http::{Carries, secure},
    proxy::Shared,
    upstream::ByteStream,
};

/// Longest document.
const MAX_BODY: usize = 1 << 20;

/// The document, if it is there within `timeout`.
pub(super) async fn get(shared: &Shared, uri: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let fetched = tokio::time::timeout(timeout, fetch(shared, uri)).await;
    let fetched = fetched.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
    fetched.map_err(|error| format!("{uri}: {error}"))
}

async fn fetch(shared: &Shared, uri: &str) -> Result<Vec<u8>, String> {
    let uri: Uri = uri.parse().map_err(|_| "is no URI".to_owned())?;
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("names no host")?;
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = connect(shared, host, port, tls).await?;
    let (mut sender, driver) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(driver);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("undermesh/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("answers with {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    driver.abort();
    Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec())
}

async fn connect(
    shared: &Shared,
    host: &str,
    port: u16,
    tls: bool,
) -> Result<Box<dyn ByteStream>, String> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = addresses(shared, name, port).await?;
    let mut last = "has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) if !tls => return Ok(Box::new(stream)),
            Ok(stream) => {
                let sni = Some(name.to_owned());
                let rule = ClientTls { mode: TlsMode::Simple, sni, ..ClientTls::default() };
                let socket = (Socket::new(stream), address);
                let secured = secure(shared, None, (&rule, name), Carries::Http1, socket).await;
                return match secured {
                    Ok(stream) => Ok(Box::new(stream.into_io())),
                    Err(failure) => Err(failure.to_string()),
                };
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// A service of the mesh has the addresses of its endpoints; the node may not know its name.
async fn addresses(shared: &Shared, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Some(known) = shared.snapshot.load().addresses_of(host, port) {
        return Ok(known);
    }
    let found = tokio::net::lookup_host((host, port)).await;
    Ok(found.map_err(|error| error.to_string())?.collect())
}
