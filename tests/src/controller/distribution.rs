//! An agent's side of distribution, that shares nothing with agents but Envoy's protocol: messages read and written with
//! declarations of its own, gzip, HTTP/2, mutual TLS.

use std::{future::poll_fn, io::Read as _, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use flate2::read::{GzDecoder, MultiGzDecoder};
use prost::Message;

use super::{
    certificates::Svid,
    grpc::{self, PREFIX, framed},
};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const TYPE_URL: &str = "type.googleapis.com/undermesh.distribution.v1.Object";
const WINDOW: u32 = 4 << 20;

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    initial: std::collections::HashMap<String, String>,
    #[prost(string, tag = "6")]
    nonce: String,
    #[prost(message, optional, tag = "7")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Fields>,
}

#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(map = "string, message", tag = "1")]
    fields: std::collections::HashMap<String, Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "3")]
    text: String,
}

#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed: Vec<String>,
}

/// A resource, by name and version.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its version.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `KIND/NAMESPACE/NAME`.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker<'a> {
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
    /// The node that it says it is.
    pub node: &'a str,
    /// It says that its pods reach nothing that is not registered.
    pub narrow: bool,
}

/// A state, as it came.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Its version.
    pub version: String,
    /// What is answered.
    pub nonce: String,
    /// What is there now; nothing where it was only skimmed.
    pub resources: Vec<Resource>,
    /// Names of what is gone.
    pub removed: Vec<String>,
    /// Bytes of it.
    pub bytes: u64,
}

impl State {
    /// The names of what is there now.
    pub fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|one| one.name.as_str()).collect()
    }
}

/// A stream that is open.
pub struct Stream {
    outgoing: h2::SendStream<Bytes>,
    incoming: h2::RecvStream,
    buffer: BytesMut,
    /// Bytes of a message that are not looked at.
    skip: usize,
}

/// A refusal: a status of gRPC, and what the server says.
pub type Refused = (u16, String);

impl Stream {
    /// Opens a stream, with what is known already. The inner error is the server's.
    ///
    /// # Errors
    /// Where it does not speak TLS with us, HTTP/2, or gRPC.
    pub async fn open(asker: &Asker<'_>, has: &[Resource]) -> Result<Result<Self, Refused>> {
        let stream = grpc::connect(asker.address, asker.name, asker.roots, asker.svid).await?;
        let (mut sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(stream)
            .await?;
        tokio::spawn(connection);
        let request =
            grpc::call(asker.name, PATH, asker.token).header("grpc-accept-encoding", "gzip");
        poll_fn(|cx| sender.poll_ready(cx)).await?;
        let (response, mut outgoing) = sender.send_request(request.body(())?, false)?;
        let first = first(asker, has);
        // Whoever is refused at once may be so before this.
        let _ = outgoing.send_data(framed(&first.encode_to_vec()), false);
        let response = response.await?;
        ensure!(response.status() == 200, "the answer is {}", response.status());
        if let Some(refused) = status(response.headers()) {
            return Ok(Err(refused));
        }
        let incoming = response.into_body();
        Ok(Ok(Self { outgoing, incoming, buffer: BytesMut::new(), skip: 0 }))
    }

    /// The next state, all of it. The inner error is the server's end of the stream.
    ///
    /// # Errors
    /// Where what comes makes no sense, or nothing in time.
    pub async fn state(&mut self, within: Duration) -> Result<Result<State, Refused>> {
        self.next(within, false).await
    }

    /// The next state, of which only version and size are looked at.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn skim(&mut self, within: Duration) -> Result<Result<State, Refused>> {
        self.next(within, true).await
    }

    async fn next(&mut self, within: Duration, skim: bool) -> Result<Result<State, Refused>> {
        let read = async {
            let mut state = State::default();
            while state.version.is_empty() {
                let Some(response) = self.message(skim, &mut state.bytes).await? else {
                    let trailers = self.incoming.trailers().await?.unwrap_or_default();
                    return Ok(Err(status(&trailers).context("the stream has ended")?));
                };
                state.version = response.version;
                state.nonce = response.nonce;
                state.resources.extend(response.resources);
                state.removed.extend(response.removed);
            }
            // What is left of a skimmed message is counted with it.
            while self.skip > 0 && self.read(&mut state.bytes).await? {}
            Ok(Ok(state))
        };
        tokio::time::timeout(within, read).await.context("no state has come in time")?
    }

    async fn message(&mut self, skim: bool, bytes: &mut u64) -> Result<Option<Response>> {
        loop {
            if self.skip == 0
                && let Some((&[flag, ref length @ ..], rest)) =
                    self.buffer.split_first_chunk::<PREFIX>()
            {
                let length = u32::from_be_bytes(*length) as usize;
                // The first part of a message, which says what it is, is small.
                let enough = if skim { length.min(1024) } else { length };
                if rest.len() >= enough {
                    let mut plain = Vec::new();
                    match (flag, skim) {
                        (0, _) => plain.extend_from_slice(&rest[..length]),
                        (_, true) => drop(GzDecoder::new(&rest[..enough]).read_to_end(&mut plain)?),
                        (_, false) => {
                            MultiGzDecoder::new(&rest[..length]).read_to_end(&mut plain)?;
                        }
                    }
                    let there = rest.len().min(length);
                    self.buffer.advance(PREFIX + there);
                    self.skip = length - there;
                    return Ok(Some(Response::decode(plain.as_slice())?));
                }
            }
            if !self.read(bytes).await? {
                return Ok(None);
            }
        }
    }

    /// Reads more; false at the end.
    async fn read(&mut self, bytes: &mut u64) -> Result<bool> {
        let Some(data) = self.incoming.data().await else { return Ok(false) };
        let mut data = data?;
        self.incoming.flow_control().release_capacity(data.len())?;
        *bytes += data.len() as u64;
        let skipped = self.skip.min(data.len());
        data.advance(skipped);
        self.skip -= skipped;
        self.buffer.extend_from_slice(&data);
        Ok(true)
    }

    /// Says that a state is in force, or why not.
    ///
    /// # Errors
    /// Where the stream is over.
    pub fn answer(&mut self, state: &State, refused: Option<&str>) -> Result<()> {
        let error = refused.map(|why| Error { code: 3, message: why.to_owned() });
        let nonce = state.nonce.clone();
        let request = Request { type_url: TYPE_URL.to_owned(), nonce, error, ..Request::default() };
        Ok(self.outgoing.send_data(framed(&request.encode_to_vec()), false)?)
    }

    /// Sends bytes that are no message.
    ///
    /// # Errors
    /// Where the stream is over.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.outgoing.send_data(Bytes::copy_from_slice(bytes), false)?)
    }
}

fn first(asker: &Asker<'_>, has: &[Resource]) -> Request {
    let text = |text: &str| Text { text: text.to_owned() };
    let mut fields = vec![("ROOT_NAMESPACE".to_owned(), text("istio-system"))];
    if asker.narrow {
        fields.push(("REACH".to_owned(), text("narrow")));
    }
    let metadata = Some(Fields { fields: fields.into_iter().collect() });
    Request {
        node: Some(Node { id: asker.node.to_owned(), metadata }),
        type_url: TYPE_URL.to_owned(),
        subscribe: vec!["*".to_owned()],
        initial: has.iter().map(|one| (one.name.clone(), one.version.clone())).collect(),
        ..Request::default()
    }
}

/// The status that is in fields; none where it is missing.
fn status(fields: &http::HeaderMap) -> Option<Refused> {
    let code = fields.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let text = fields.get("grpc-message").and_then(|text| text.to_str().ok());
    Some((code, text.unwrap_or_default().to_owned()))
}
