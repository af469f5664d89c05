//! Streams and connections that break, or end in an orderly way: each end learns what the other did.

use bytes::Bytes;
use h2::{Reason, server};
use http::{Request, Response};

use super::*;
use crate::tests::http::frames::*;

type Connection = server::Connection<TcpStream, Bytes>;
type Asked = (Request<h2::RecvStream>, server::SendResponse<Bytes>);

/// The server's end of a connection of HTTP/2.
async fn accept(server: &Server) -> Connection {
    server::handshake(server.accept().await).await.unwrap()
}

async fn next(connection: &mut Connection) -> Asked {
    timeout(SOON, connection.accept()).await.expect("a request").expect("no end").unwrap()
}

fn ask(stream: u32, flags: u8) -> Vec<u8> {
    let request =
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "cart")];
    frame(HEADERS, END_HEADERS | flags, stream, fields(&request))
}

fn answer(asked: &mut Asked, end: bool) -> h2::SendStream<Bytes> {
    asked.1.send_response(Response::new(()), end).unwrap()
}

/// What ends a stream or the connection.
async fn end(peer: &mut Peer) -> Heard {
    loop {
        match peer.hear().await {
            Heard::SettingsAck | Heard::Data(..) => {}
            heard => return heard,
        }
    }
}

async fn peer(ends: &Ends) -> Peer {
    Peer::connect(&ends.rig, ends.to).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_goodbye_answers_what_it_has_and_gets_no_more() {
    let ends = Ends::new(AppProtocol::Http2).await;
    let mut peer = peer(&ends).await;
    peer.say(&ask(1, END_STREAM)).await;
    let mut first = accept(&ends.server).await;
    let mut asked = next(&mut first).await;
    first.graceful_shutdown();
    answer(&mut asked, true);
    let over = tokio::spawn(async move {
        assert!(!matches!(first.accept().await, Some(Ok(_))), "another request");
    });
    assert_eq!(end(&mut peer).await, Heard::Answer(1, 200));
    timeout(SOON, over).await.expect("the end").unwrap();
    peer.say(&ask(3, END_STREAM)).await;
    let mut second = accept(&ends.server).await;
    let mut asked = next(&mut second).await;
    answer(&mut asked, true);
    tokio::spawn(async move { second.accept().await.is_none() });
    assert_eq!(end(&mut peer).await, Heard::Answer(3, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_server_refuses_is_asked_for_again() {
    let ends = Ends::new(AppProtocol::Http2).await;
    let mut peer = peer(&ends).await;
    peer.say(&ask(1, END_STREAM)).await;
    let mut connection = accept(&ends.server).await;
    let (_, mut refused) = next(&mut connection).await;
    refused.send_reset(Reason::REFUSED_STREAM);
    let mut asked = next(&mut connection).await;
    answer(&mut asked, true);
    tokio::spawn(async move { connection.accept().await.is_none() });
    assert_eq!(end(&mut peer).await, Heard::Answer(1, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_request_back_is_heard_by_the_server() {
    let ends = Ends::new(AppProtocol::Http2).await;
    let mut peer = peer(&ends).await;
    peer.say(&[ask(1, 0), frame(DATA, 0, 1, "hello")].concat()).await;
    let mut connection = accept(&ends.server).await;
    let (request, _respond) = next(&mut connection).await;
    tokio::spawn(async move { connection.accept().await.is_none() });
    let mut body = request.into_body();
    assert_eq!(timeout(SOON, body.data()).await.unwrap().unwrap().unwrap(), "hello");
    peer.say(&frame(RST_STREAM, 0, 1, [0, 0, 0, 8])).await;
    let error = timeout(SOON, body.data()).await.unwrap().expect("no end").unwrap_err();
    assert!(error.is_reset(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_complete() {
    let ends = Ends::new(AppProtocol::Http2).await;
    let mut two = peer(&ends).await;
    two.say(&ask(1, END_STREAM)).await;
    let mut connection = accept(&ends.server).await;
    let mut asked = next(&mut connection).await;
    let mut body = answer(&mut asked, false);
    body.send_data(Bytes::from("half"), false).unwrap();
    tokio::spawn(async move { connection.accept().await.is_none() });
    assert_eq!(two.hear().await, Heard::Data(1, 4));
    body.send_reset(Reason::INTERNAL_ERROR);
    let heard = end(&mut two).await;
    assert!(matches!(heard, Heard::Reset(1, code) if code != NO_ERROR), "{heard:?}");

    for ends in [Ends::new(AppProtocol::Http).await, Ends::judged().await] {
        for says in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ] {
            let (mut one, mut two) = (ends.dial().await, peer(&ends).await);
            write(&mut one, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
            let mut far = ends.server.accept().await;
            read_head(&mut far).await;
            write(&mut far, says).await;
            // A break may overtake what came before it, but for what has been read.
            read_head(&mut one).await;
            drop(far);
            let heard = rest(&mut one).await;
            let text = String::from_utf8_lossy(&heard.0);
            assert!(text.len() < 10 && !text.ends_with("0\r\n\r\n"), "{text}");
            if ends.to == VIP.parse().unwrap() {
                two.say(&ask(1, END_STREAM)).await;
                let mut far = ends.server.accept().await;
                read_head(&mut far).await;
                write(&mut far, says).await;
                drop(far);
                assert!(matches!(end(&mut two).await, Heard::Reset(1, _)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_have_answered_and_want_no_more_of_the_request() {
    let ends = Ends::new(AppProtocol::Http2).await;
    let mut peer = peer(&ends).await;
    peer.say(&[ask(1, 0), frame(DATA, 0, 1, "hello")].concat()).await;
    let mut connection = accept(&ends.server).await;
    let mut asked = next(&mut connection).await;
    let mut body = answer(&mut asked, false);
    body.send_data(Bytes::from("enough"), true).unwrap();
    // h2 resets a stream with NO_ERROR whose request nobody reads to its end.
    drop((asked, body));
    tokio::spawn(async move { connection.accept().await.is_none() });
    assert_eq!(end(&mut peer).await, Heard::Answer(1, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_before_the_answer_is_answered_for() {
    let ends = Ends::new(AppProtocol::Http).await;
    let mut near = ends.dial().await;
    write(&mut near, "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut far = ends.server.accept().await;
    read_head(&mut far).await;
    crate::tests::mesh::reset(far);
    let heard = read_head(&mut near).await;
    assert!(heard.starts_with("HTTP/1.1 503 "), "{heard}");
}
