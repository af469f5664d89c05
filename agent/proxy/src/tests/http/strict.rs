//! Requests that mean one thing to one reader and another to the next.

use super::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused_and_reach_nobody() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let te = "Transfer-Encoding: chunked\r\n";
    let cl = "Content-Length: 5\r\n";
    for (name, head) in [
        ("TE and CL", format!("{te}{cl}")),
        ("CL and TE", format!("{cl}{te}")),
        ("two lengths", format!("{cl}Content-Length: 6\r\n")),
        ("the same length twice", format!("{cl}{cl}")),
        ("a list of lengths", "Content-Length: 5, 5\r\n".to_owned()),
        ("a signed length", "Content-Length: +5\r\n".to_owned()),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n".to_owned()),
        ("a space before the colon", "Content-Length : 5\r\n".to_owned()),
        ("a folded header", "X-A: b\r\n Content-Length: 5\r\n".to_owned()),
        ("a bare line feed", "X-A: b\nContent-Length: 5\r\n".to_owned()),
        ("a NUL", "X-A: \0\r\n".to_owned()),
        ("two hosts", "Host: other\r\n".to_owned()),
    ] {
        let text =
            format!("POST / HTTP/1.1\r\nHost: cart\r\n{head}\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n");
        let answer = rig.say(&text, false).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer:?}");
    }
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_none_breaks_the_request_off() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    for chunk in ["5\nhello\r\n", "0x5\r\nhello\r\n", "3\r\nhello\r\n", "FFFFFFFFFFFFFFFFF\r\n"] {
        let head = "POST / HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = rig.say(&format!("{head}{chunk}0\r\n\r\n"), false).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{chunk:?}: {answer:?}");
    }
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ambiguous_passes() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let chunked = "POST /a HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let sized =
        "POST /b HTTP/1.1\r\nHost: cart\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = rig.say(&format!("{chunked}{sized}"), false).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    let seen = rig.backends[0].requests();
    assert_eq!((&seen[0].body[..], &seen[1].body[..]), (&b"hello world"[..], &b"hi"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_refused() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let head = format!("GET / HTTP/1.1\r\nHost: cart\r\nX-A: {}\r\n\r\n", "x".repeat(300_000));
    let answer = rig.say(&head, false).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
}
