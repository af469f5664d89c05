//! A receiver of OTLP in any namespace of a rig. It reads spans with the messages that OpenTelemetry generates.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

use crate::netns::Netns;

/// Flag and length before a message of gRPC.
const PREFIX: usize = 5;

/// A span as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Over which protocol: `grpc` or `http`.
    pub over: &'static str,
    /// The trace, in hexadecimal digits; so for the other two.
    pub trace: String,
    /// The span.
    pub id: String,
    /// Its parent; empty for the first of a trace.
    pub parent: String,
    /// What was done.
    pub name: String,
    /// 2 for a server's, 3 for a client's.
    pub kind: i32,
    /// It counts as failed.
    pub failed: bool,
    /// Attributes, numbers as text; those of the resource as well.
    pub about: BTreeMap<String, String>,
    /// Names of what has happened meanwhile.
    pub events: Vec<String>,
}

impl Received {
    /// An attribute; nothing for one that is not there.
    pub fn get(&self, key: &str) -> &str {
        self.about.get(key).map_or("", String::as_str)
    }
}

/// What listens, and what it has heard. It listens for as long as it lives.
///
/// Messages are kept as they come, and read when somebody asks: a benchmark's machine is not to pay for a receiver that
/// would be somewhere else.
pub struct Receiver {
    heard: Heard,
    runtime: Runtime,
}

impl Receiver {
    /// One that listens nowhere yet.
    ///
    /// # Errors
    /// Where there are no threads to be had.
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { heard: Arc::default(), runtime })
    }

    /// Listens on a loopback port of a namespace, and returns the port. `over` is `grpc` or `http`.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn listen(&self, netns: &Netns, over: &'static str) -> Result<u16> {
        let listener = netns
            .run(|| std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))??;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let heard = Arc::clone(&self.heard);
        let _runtime = self.runtime.enter();
        let listener = TcpListener::from_std(listener).context("the receiver's port")?;
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                // What is wrong with it shows in what is missing.
                tokio::spawn(async move {
                    let _ = match over {
                        "grpc" => grpc(stream, heard).await,
                        _ => http1(stream, heard).await,
                    };
                });
            }
        });
        Ok(port)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Received> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        heard.iter().flat_map(|(over, message)| read(over, message)).collect()
    }
}

/// Messages, and over which protocol they came.
type Heard = Arc<Mutex<Vec<(&'static str, Bytes)>>>;

async fn grpc(stream: TcpStream, heard: Heard) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted.map_err(io::Error::other)?;
        let heard = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut bytes = BytesMut::new();
            while let Some(Ok(chunk)) = body.data().await {
                let _ = body.flow_control().release_capacity(chunk.len());
                bytes.extend_from_slice(&chunk);
            }
            bytes.advance(PREFIX.min(bytes.len()));
            keep(&heard, "grpc", bytes.freeze());
            let mut response = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", grpc);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            if let Ok(mut answer) = respond.send_response(response, false) {
                let _ = answer.send_data(Bytes::from_static(&[0; PREFIX]), false);
                let _ = answer.send_trailers(trailers);
            }
        });
    }
    Ok(())
}

async fn http1(stream: TcpStream, heard: Heard) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        keep(&heard, "http", body.into());
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

fn keep(heard: &Heard, over: &'static str, message: Bytes) {
    heard.lock().unwrap_or_else(PoisonError::into_inner).push((over, message));
}

/// The spans of a message; none of one that is not understood.
fn read(over: &'static str, message: &Bytes) -> Vec<Received> {
    let request = ExportTraceServiceRequest::decode(message.clone()).unwrap_or_default();
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = group.resource.unwrap_or_default().attributes;
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| received(over, &resource, span)));
    }
    all
}

fn received(over: &'static str, resource: &[KeyValue], span: Span) -> Received {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let pairs = resource.iter().chain(&span.attributes);
    Received {
        over,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        about: pairs.map(|pair| (pair.key.clone(), text(pair))).collect(),
        events: span.events.iter().map(|event| event.name.clone()).collect(),
        name: span.name,
    }
}

fn text(pair: &KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    }
}
