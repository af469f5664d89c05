//! `istio.v1.auth.IstioCertificateService/CreateCertificate` as bytes on a wire: HTTP/2 and Protocol Buffers
//! by hand, with nothing of the mesh's own code. What works here works with any client that Istio has.

use std::{future::poll_fn, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use rcgen::{CertificateParams, KeyPair};

use super::grpc;
use crate::authorizer::message::{bytes, number};

const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A certificate of the mesh and its key.
#[derive(Debug)]
pub struct Svid {
    /// The chain in PEM, the leaf first, without roots.
    pub chain: String,
    /// The roots in PEM, as they came with it.
    pub roots: String,
    /// The key in PEM.
    pub key: String,
}

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Where the server is.
    pub address: SocketAddr,
    /// What it is called.
    pub name: &'a str,
    /// The roots that it is verified with, in PEM.
    pub roots: &'a str,
    /// A token, if one is shown.
    pub token: Option<&'a str>,
    /// A certificate, if one is shown.
    pub svid: Option<&'a Svid>,
    /// For whom a certificate is wanted; empty for who asks.
    pub identity: &'a str,
    /// For how long, in seconds; 0 for as long as the server likes.
    pub seconds: u64,
    /// The request to be signed, in place of a new one.
    pub csr: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// With a token, for a day or what the server makes of it.
    pub fn new(address: SocketAddr, name: &'a str, roots: &'a str, token: &'a str) -> Self {
        let token = Some(token);
        Self { address, name, roots, token, svid: None, identity: "", seconds: 0, csr: None }
    }

    /// The same for another identity.
    #[must_use]
    pub fn wanting(self, identity: &'a str) -> Self {
        Self { identity, ..self }
    }

    /// Asks. The inner error is the server's: its status of gRPC, and what it says.
    ///
    /// # Errors
    /// Where it does not speak TLS with us, HTTP/2, or gRPC.
    pub fn ask(&self) -> Result<Result<Svid, (u16, String)>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.ask_at_once())
    }

    /// The same within a runtime.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_at_once(&self) -> Result<Result<Svid, (u16, String)>> {
        let key = KeyPair::generate()?;
        let csr = match self.csr {
            Some(csr) => csr.to_owned(),
            None => CertificateParams::default().serialize_request(&key)?.pem()?,
        };
        let mut message = bytes(1, csr.as_bytes());
        if self.seconds > 0 {
            message.extend(number(3, self.seconds));
        }
        if !self.identity.is_empty() {
            let value = bytes(3, self.identity.as_bytes());
            let entry = [bytes(1, b"ImpersonatedIdentity"), bytes(2, &value)].concat();
            message.extend(bytes(4, &bytes(1, &entry)));
        }
        let (answer, trailers) = self.call(&message).await?;
        let status = trailers.get("grpc-status").context("no status of gRPC")?.to_str()?;
        let status: u16 = status.parse()?;
        if status != 0 {
            let text = trailers.get("grpc-message").map(|text| text.to_str()).transpose()?;
            return Ok(Err((status, text.unwrap_or_default().to_owned())));
        }
        let mut entries = entries(&answer)?;
        let roots = entries.pop().context("no roots in the answer")?;
        Ok(Ok(Svid { chain: entries.concat(), roots, key: key.serialize_pem() }))
    }

    async fn call(&self, message: &[u8]) -> Result<(Bytes, HeaderMap)> {
        let stream = grpc::connect(self.address, self.name, self.roots, self.svid).await?;
        let (mut sender, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = grpc::call(self.name, PATH, self.token).header("clusterid", "Kubernetes");
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (response, mut body) = sender.send_request(request.body(())?, false)?;
        body.send_data(grpc::framed(message), true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "the answer is {}", response.status());
        let head = response.headers().clone();
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.extend_from_slice(&data);
        }
        let trailers = body.trailers().await?.unwrap_or(head);
        Ok((answer.freeze(), trailers))
    }
}

/// The entries of `cert_chain` (field 1, repeated) in a framed message.
fn entries(answer: &[u8]) -> Result<Vec<String>> {
    let mut rest = answer.get(5..).context("no message in the answer")?;
    let mut entries = Vec::new();
    while let Some((tag, after)) = rest.split_first() {
        ensure!(*tag == 1 << 3 | 2, "another field than cert_chain: {tag}");
        let (mut length, mut shift, mut used) = (0_usize, 0, 0);
        for byte in after {
            length |= usize::from(byte & 0x7f) << shift;
            (shift, used) = (shift + 7, used + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        let entry = after.get(used..used + length).context("an entry is cut off")?;
        entries.push(String::from_utf8(entry.to_vec())?);
        rest = &after[used + length..];
    }
    Ok(entries)
}

/// Writes a text for a process that reads it at any moment: it sees the former one or this.
///
/// # Errors
/// Where the directory cannot be written to.
pub fn replace_file(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    Ok(std::fs::rename(beside, path)?)
}
