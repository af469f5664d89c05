//! Length and coding of a body: RFC 9112, section 6.

use super::*;

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /$ HTTP/1.1\r\nHost: cart\r\n{fields}\r\n{body}")
}

pub(super) fn rows() -> Vec<Row> {
    [both(), codings(), lengths(), connections()].into_iter().flatten().collect()
}

fn both() -> Vec<Row> {
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    vec![
        refused("a length, then a coding", post(&format!("{length}{coding}"), CHUNKS)),
        refused("a coding, then a length", post(&format!("{coding}{length}"), CHUNKS)),
        refused(
            "a length of 0 and a coding",
            post(&format!("Content-Length: 0\r\n{coding}"), CHUNKS),
        ),
        refused("a coding in HTTP/1.0", post(coding, CHUNKS).replace("HTTP/1.1", "HTTP/1.0")),
        refused(
            "an unknown coding and a length",
            post(&format!("Transfer-Encoding: x\r\n{length}"), "hello"),
        ),
        passes("a length", post(length, "hello"), &["POST /$ hello"]),
        passes("a coding", post(coding, CHUNKS), &["POST /$ hello"]),
        passes("neither", post("", ""), &["POST /$"]),
        passes(
            "a content coding that means nothing here",
            post(&format!("Content-Encoding: chunked\r\n{length}"), "hello"),
            &["POST /$ hello"],
        ),
    ]
}

/// Ways to write `Transfer-Encoding: chunked` that one reader takes for it and another does not.
fn codings() -> Vec<Row> {
    let mut rows = Vec::new();
    for field in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: ,",
        "Transfer-Encoding:",
        "Transfer-Encoding: ch\u{fc}nked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: chunked\x0c",
        "Transfer-Encoding: chunked\x08",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: ch\0unked",
        "Transfer-Encoding: \r\n chunked",
        "Transfer-Encoding:\r\n\tchunked",
        "Transfer-Encoding: \n chunked",
        "Transfer-Encoding: chunked\r\n , identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\x0b: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer-Encoding\u{a0}: chunked",
        "Transfer-Encoding; chunked",
        "Transfer-Encoding chunked",
        "Transfer Encoding: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "X: y\n Transfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\0Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    ] {
        rows.push(refused(field, post(&format!("{field}\r\n"), CHUNKS)));
    }
    for field in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: \t chunked",
        "Transfer-Encoding: chunked \t",
        "transfer-encoding: CHUNKED",
        "TRANSFER-ENCODING: cHuNkEd",
    ] {
        rows.push(passes(field, post(&format!("{field}\r\n"), CHUNKS), &["POST /$ hello"]));
    }
    rows
}

fn lengths() -> Vec<Row> {
    let mut rows = Vec::new();
    for field in [
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5x",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: 5, 5",
        "Content-Length: 5,",
        "Content-Length: ,5",
        "Content-Length: 5 5",
        "Content-Length: 5;x",
        "Content-Length: \"5\"",
        "Content-Length: \u{ff15}",
        "Content-Length: 5\x0b",
        "Content-Length: 5\0",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551621",
        "Content-Length: 99999999999999999999999999",
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Content-Length\r\n : 5",
        "Content-Length: \r\n 5",
        " Content-Length: 5",
        "X: y\nContent-Length: 5",
        "X: y\r\n Content-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\ncontent-length: 0",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length:",
    ] {
        rows.push(refused(field, post(&format!("{field}\r\n"), "hello")));
    }
    for field in [
        "Content-Length:5",
        "Content-Length: \t5 \t",
        "CONTENT-LENGTH: 5",
        "Content-Length: 00005",
        "Content_Length: 7\r\nContent-Length: 5",
        "Content-Length-X: 7\r\nContent-Length: 5",
    ] {
        rows.push(passes(field, post(&format!("{field}\r\n"), "hello"), &["POST /$ hello"]));
    }
    rows
}

/// What a header claims to be about the connection alone.
fn connections() -> Vec<Row> {
    let length = "Content-Length: 5\r\n";
    let second = "GET /$second HTTP/1.1\r\nHost: cart\r\n\r\n";
    let both = ["POST /$ hello", "GET /$second"];
    let get = |fields: &str| format!("GET /$ HTTP/1.1\r\nHost: cart\r\n{fields}\r\n{second}");
    vec![
        passes(
            "a length that is named away",
            post(&format!("Connection: Content-Length\r\n{length}"), "hello"),
            &["POST /$ hello"],
        ),
        passes(
            "a coding that is named away",
            post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
            &["POST /$ hello"],
        ),
        passes(
            "a host that is named away",
            get("Connection: host\r\n"),
            &["GET /$", "GET /$second"],
        ),
        passes("two requests at once", post(length, &format!("hello{second}")), &both),
        passes(
            "two, of which the first has chunks",
            post("Transfer-Encoding: chunked\r\n", &format!("{CHUNKS}{second}")),
            &both,
        ),
        passes(
            "a GET with a body",
            format!("GET /$ HTTP/1.1\r\nHost: cart\r\n{length}\r\nhello{second}"),
            &["GET /$ hello", "GET /$second"],
        ),
        passes(
            "a body that looks like a request",
            post("Content-Length: 41\r\n", &second.replace("$second", "within-it-0")),
            &["POST /$ GET /within-it-0 HTTP/1.1\r\nHost: cart\r\n\r\n"],
        ),
        passes(
            "h2c",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
            ),
            &["GET /$", "GET /$second"],
        ),
        passes(
            "h2c without settings",
            get("Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            &["GET /$", "GET /$second"],
        ),
        passes(
            "h2c in a list",
            get("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            &["GET /$", "GET /$second"],
        ),
        passes(
            "an upgrade that is not asked for",
            get("Upgrade: websocket\r\n"),
            &["GET /$", "GET /$second"],
        ),
        passes(
            "an upgrade that is refused",
            get("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            &["GET /$", "GET /$second"],
        ),
        passes(
            "an unknown expectation",
            post(&format!("Expect: x\r\n{length}"), "hello"),
            &["POST /$ hello"],
        ),
        passes(
            "100-continue that is not waited for",
            post(&format!("Expect: 100-Continue\r\n{length}"), &format!("hello{second}")),
            &both,
        ),
        Row {
            passes: vec!["POST /$ hello"],
            ..refused(
                "a bad request behind a good one",
                post(length, "helloGET /$second HTTP/1.1\r\n\r\n"),
            )
        },
        Row {
            passes: vec!["POST /$ hello"],
            ..refused("more of a body than it says", post(length, "hello there"))
        },
    ]
}
