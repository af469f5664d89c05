//! The server of HTTP/2 and gRPC.

use std::{fmt::Write as _, io, net::TcpStream, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use tokio::runtime;

use super::{HOLD, Served, is_held, plan::Plan, remember};

pub(super) fn serve(stream: TcpStream, served: Served) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(connection(stream, served)).map_err(io::Error::other)
}

async fn connection(stream: TcpStream, served: Served) -> Result<(), h2::Error> {
    let stream = tokio::net::TcpStream::from_std(stream).map_err(io_error)?;
    let mut connection = Builder::new().enable_connect_protocol().handshake(stream).await?;
    let served = Arc::new(served);
    // Polling it is what moves the streams.
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(answer(request, respond, Arc::clone(&served)));
    }
    Ok(())
}

fn io_error(_: io::Error) -> h2::Error {
    Reason::INTERNAL_ERROR.into()
}

/// How it ends is the client's to see.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    served: Arc<Served>,
) {
    let head = head(&request);
    remember(&head);
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.ok().flatten();
    let plan = Plan::of(&head, &served.name);
    tokio::time::sleep(plan.wait).await;
    while plan.hold && is_held(&head) {
        tokio::time::sleep(HOLD).await;
    }
    if plan.reset || plan.refuse {
        let reason = if plan.refuse { Reason::REFUSED_STREAM } else { Reason::INTERNAL_ERROR };
        respond.send_reset(reason);
        return;
    }
    let _ = send(&mut respond, &plan, &served, &head, trailers);
}

fn send(
    respond: &mut SendResponse<Bytes>,
    plan: &Plan,
    served: &Served,
    head: &str,
    received: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    let grpc =
        super::header(head, "content-type").is_some_and(|it| it.starts_with("application/grpc"));
    let mut response = Response::new(());
    *response.status_mut() = plan.status.try_into().unwrap_or_default();
    for (name, value) in served.headers() {
        put(response.headers_mut(), name, &value);
    }
    for (name, value) in &plan.headers {
        put(response.headers_mut(), name, value);
    }
    if grpc {
        let value = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    if let Some(status) = plan.grpc {
        put(response.headers_mut(), "grpc-status", &status.to_string());
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(response, false)?;
    let content = if grpc { message(head) } else { Bytes::from(head.to_owned()) };
    // Enough in every window that a client opens with.
    stream.reserve_capacity(content.len());
    if !grpc && received.is_none() {
        return stream.send_data(content, true);
    }
    stream.send_data(content, false)?;
    let mut trailers = received.unwrap_or_default();
    if grpc {
        put(&mut trailers, "grpc-status", &plan.trailer.to_string());
    }
    stream.send_trailers(trailers)
}

/// A message of gRPC: no compression, its length, its bytes.
fn message(text: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(text.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(text.len()).unwrap_or(0));
    message.put_slice(text.as_bytes());
    message.freeze()
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = http::HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
        headers.append(name, value);
    }
}

/// The head as HTTP/1.1 would write it.
fn head(request: &Request<RecvStream>) -> String {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("*", |path| path.as_str());
    let mut head = format!("{} {path} HTTP/2\r\n", request.method());
    if let Some(authority) = uri.authority() {
        // Writing to a string cannot fail.
        let _ = write!(head, "host: {authority}\r\n");
    }
    for (name, value) in request.headers() {
        let _ = write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()));
    }
    head.push_str("\r\n");
    head
}
