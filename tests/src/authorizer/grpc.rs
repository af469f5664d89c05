//! One connection of gRPC.

use std::{future::poll_fn, io, net::TcpStream, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};

use super::{Question, Reaction, State};

pub(super) fn serve(stream: TcpStream, state: &Arc<State>) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut connection = server::handshake(stream).await.map_err(io::Error::other)?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted.map_err(io::Error::other)?;
            tokio::spawn(answer(request, respond, Arc::clone(state)));
        }
        Ok(())
    })
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, state: Arc<State>) {
    let path = request.uri().path().to_owned();
    let mut content = request.into_body();
    let mut body = Vec::new();
    while let Some(Ok(data)) = content.data().await {
        let _ = content.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    if path != "/envoy.service.auth.v3.Authorization/Check" {
        // Unimplemented.
        let _ = fail(&mut respond, 12);
        return;
    }
    match state.note(Question { head: String::new(), body }) {
        Reaction::Say(message) => {
            let _ = say(&mut respond, &message).await;
        }
        Reaction::Fail(status) => {
            let _ = fail(&mut respond, status);
        }
        Reaction::Hang => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
            state.given_up();
        }
    }
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head
}

fn fail(respond: &mut SendResponse<Bytes>, status: u16) -> Result<(), h2::Error> {
    let mut head = head();
    head.headers_mut().insert("grpc-status", HeaderValue::from(status));
    respond.send_response(head, true).map(drop)
}

async fn say(respond: &mut SendResponse<Bytes>, message: &[u8]) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head(), false)?;
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    let mut rest = framed.freeze();
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(room)) => stream.send_data(rest.split_to(room.min(rest.len())), false)?,
            _ => return Ok(()),
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
