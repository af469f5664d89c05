//! The client of HTTP/2 and gRPC.

use std::{io, net::TcpStream};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request};
use tokio::runtime;
use undermesh_tests::pod::http::{Ask, Headers, Reply, Speaks};

use crate::sockets::PATIENCE;

pub(super) fn ask(ask: &Ask, stream: TcpStream, reply: &mut Reply) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, async {
            let client = open(stream).await?;
            let mut client = client.ready().await.map_err(io::Error::other)?;
            request(&mut client, ask, reply).await
        });
        asked.await.map_err(io::Error::other)?
    })
}

/// Makes requests.
pub(crate) type Client = h2::client::SendRequest<Bytes>;

/// Speaks HTTP/2 over a connection, which ends with its last client.
pub(crate) async fn open(stream: TcpStream) -> io::Result<Client> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(client)
}

/// One of several requests of a client that is ready for it.
pub(crate) async fn request(client: &mut Client, ask: &Ask, reply: &mut Reply) -> io::Result<()> {
    let body =
        if ask.speaks == Speaks::Grpc { message(&ask.body) } else { Bytes::from(ask.body.clone()) };
    let alone = body.is_empty();
    let request = head(ask).map_err(io::Error::other)?;
    let (answer, mut sender) = client.send_request(request, alone).map_err(io::Error::other)?;
    if !alone {
        // Small, so that it fits into the first window.
        sender.send_data(body, true).map_err(io::Error::other)?;
    }
    let answer = answer.await.map_err(io::Error::other)?;
    reply.status = answer.status().as_u16();
    reply.headers = fields(answer.headers());
    let mut body = answer.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
        content.extend_from_slice(&data);
    }
    let skipped = if ask.speaks == Speaks::Grpc { content.len().min(5) } else { 0 };
    reply.body = String::from_utf8_lossy(&content[skipped..]).into_owned();
    let trailers = body.trailers().await.map_err(io::Error::other)?;
    reply.trailers = trailers.as_ref().map(fields).unwrap_or_default();
    Ok(())
}

fn head(ask: &Ask) -> http::Result<Request<()>> {
    let mut request = Request::builder()
        .method(ask.method.as_str())
        .uri(format!("http://{}{}", ask.authority, ask.path));
    if ask.speaks == Speaks::Grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    request.body(())
}

/// A message of gRPC: no compression, its length, its bytes.
fn message(content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(content.len()).unwrap_or(0));
    message.put_slice(content);
    message.freeze()
}

fn fields(headers: &HeaderMap) -> Headers {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
