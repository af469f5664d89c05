//! Answers of an HTTP/1.1 server, as clients of HTTP/1.1 and HTTP/1.0 hear them, through either edge.

use super::*;

/// What a server says, and what its client hears.
struct Row {
    name: &'static str,
    method: &'static str,
    version: &'static str,
    /// What the server says before it closes.
    says: String,
    line: &'static str,
    /// Headers with all of their values; none at all for a header that stays behind.
    headers: &'static [(&'static str, &'static [&'static str])],
    body: String,
}

fn row(name: &'static str, says: &str, line: &'static str, body: &str) -> Row {
    let (says, body) = (says.to_owned(), body.to_owned());
    Row { name, method: "GET", version: "HTTP/1.1", says, line, headers: &[], body }
}

const OK: &str = "HTTP/1.1 200 OK";

fn rows() -> Vec<Row> {
    let bytes: String = "hello".chars().map(|letter| format!("1\r\n{letter}\r\n")).collect();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n";
    let endless = "HTTP/1.1 200 OK\r\n\r\nhello";
    vec![
        Row {
            headers: &[("content-length", &["5"])],
            ..row("a length", &format!("{sized}\r\nhello"), OK, "hello")
        },
        Row {
            headers: &[("transfer-encoding", &["chunked"])],
            ..row("chunks of a byte", &format!("{chunked}{bytes}0\r\n\r\n"), OK, "hello")
        },
        Row {
            headers: &[("transfer-encoding", &["chunked"])],
            ..row("no length", endless, OK, "hello")
        },
        Row {
            headers: &[("transfer-encoding", &["chunked"]), ("content-length", &[])],
            ..row(
                "a coding and a length",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                OK,
                "hello",
            )
        },
        Row {
            headers: &[("content-length", &["5"])],
            ..row(
                "a list of lengths",
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
                OK,
                "hello",
            )
        },
        Row {
            headers: &[("content-length", &["5"])],
            ..row(
                "the same length twice",
                &format!("{sized}Content-Length: 5\r\n\r\nhello"),
                OK,
                "hello",
            )
        },
        Row {
            version: "HTTP/1.0",
            headers: &[("transfer-encoding", &[]), ("content-length", &[])],
            ..row("no length, to HTTP/1.0", endless, "HTTP/1.0 200 OK", "hello")
        },
        Row {
            version: "HTTP/1.0",
            headers: &[("transfer-encoding", &[])],
            ..row(
                "chunks, to HTTP/1.0",
                &format!("{chunked}{bytes}0\r\n\r\n"),
                "HTTP/1.0 200 OK",
                "hello",
            )
        },
        Row {
            headers: &[("content-length", &["2"])],
            ..row(
                "HTTP/1.0 with a length",
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                OK,
                "hi",
            )
        },
        Row {
            method: "HEAD",
            headers: &[("content-length", &["100"])],
            ..row(
                "the length that HEAD asks for",
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
                OK,
                "",
            )
        },
        row("no content", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content", ""),
        Row {
            headers: &[("etag", &["\"x\""])],
            ..row(
                "not modified",
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                "HTTP/1.1 304 Not Modified",
                "",
            )
        },
        row("an empty body", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OK, ""),
        row(
            "100 of the server's own",
            &format!("HTTP/1.1 100 Continue\r\n\r\n{sized}\r\nhello"),
            OK,
            "hello",
        ),
        Row {
            headers: &[("link", &[])],
            ..row(
                "early hints end here",
                &format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{sized}\r\nhello"),
                OK,
                "hello",
            )
        },
        row(
            "an unknown success",
            "HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 299 Odd",
            "hi",
        ),
        row(
            "an unknown failure",
            "HTTP/1.1 599 Very Odd\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 599 Very Odd",
            "hi",
        ),
        row(
            "a reason of its own",
            "HTTP/1.1 200 Fine, thanks\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 200 Fine, thanks",
            "hi",
        ),
        Row {
            headers: &[("set-cookie", &["a=1", "b=2", "c=3"]), ("x-two", &["1", "2"])],
            ..row(
                "headers that repeat",
                &format!(
                    "{sized}Set-Cookie: a=1\r\nX-Two: 1\r\nSet-Cookie: b=2\r\nX-Two: 2\r\nSet-Cookie: c=3\r\n\r\nhello"
                ),
                OK,
                "hello",
            )
        },
        Row {
            headers: &[
                ("keep-alive", &[]),
                ("proxy-connection", &[]),
                ("x-hop", &[]),
                ("x-end", &["1"]),
            ],
            ..row(
                "what belongs to the connection",
                &format!(
                    "{sized}Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Hop: 1\r\nX-End: 1\r\n\r\nhello"
                ),
                OK,
                "hello",
            )
        },
        Row {
            headers: &[("x-large", &[LARGE])],
            ..row("a large header", &format!("{sized}X-Large: {LARGE}\r\n\r\nhello"), OK, "hello")
        },
        Row {
            headers: &[("upgrade", &[]), ("connection", &["close"])],
            ..row(
                "an offer to upgrade",
                &format!("{sized}Connection: upgrade\r\nUpgrade: h2c\r\n\r\nhello"),
                OK,
                "hello",
            )
        },
        row(
            "a large body",
            &format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000)),
            OK,
            &"x".repeat(300_000),
        ),
    ]
}

/// 40 KiB.
const LARGE: &str = match str::from_utf8(&[b'x'; 40 << 10]) {
    Ok(text) => text,
    Err(_) => "",
};

/// A body as its framing has it.
fn body(head: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    if values(head, "transfer-encoding").is_empty() {
        return text;
    }
    let (mut body, mut rest) = (String::new(), text.as_str());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

async fn hold(ends: &Ends) {
    for row in rows() {
        let Row { name, method, version, .. } = row;
        let mut near = ends.dial().await;
        let ask = format!("{method} / {version}\r\nHost: cart\r\nConnection: close\r\n\r\n");
        write(&mut near, ask).await;
        let mut far = ends.server.accept().await;
        let asked = read_head(&mut far).await;
        assert!(asked.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{name}: {asked}");
        write(&mut far, &row.says).await;
        drop(far);
        let head = read_head(&mut near).await;
        let (bytes, orderly) = rest(&mut near).await;
        assert!(orderly, "{name}: the connection was reset");
        assert_eq!(head.lines().next(), Some(row.line), "{name}");
        for (header, wanted) in row.headers {
            assert!(values(&head, header) == *wanted, "{name}: {header} in {head}");
        }
        assert!(
            body(&head, &bytes) == row.body,
            "{name}: {head}{}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_the_routing_edge_as_they_are() {
    hold(&Ends::new(AppProtocol::Http).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_the_judging_edge_as_they_are() {
    hold(&Ends::judged().await).await;
}
