//! What every client of a controller needs: TLS with what it has to show, and gRPC's bytes in HTTP/2. By hand, with
//! nothing of the mesh's own code.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::certificates::Svid;

/// Flag and length before a message.
pub(super) const PREFIX: usize = 5;

/// Connects to a server that is called `name`, and is verified with `roots` in PEM.
pub(super) async fn connect(
    address: SocketAddr,
    name: &str,
    roots: &str,
    svid: Option<&Svid>,
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let server = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(Arc::new(tls(roots, svid)?)).connect(server, stream).await?)
}

/// The beginning of a call: its address, and who calls.
pub(super) fn call(name: &str, path: &str, token: Option<&str>) -> http::request::Builder {
    let request = http::Request::post(format!("https://{name}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// A message with what stands before it.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn tls(roots: &str, svid: Option<&Svid>) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store);
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(svid.chain.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(svid.key.as_bytes())?;
            builder.with_client_auth_cert(chain?, key)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
