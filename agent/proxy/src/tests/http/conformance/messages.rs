//! Requests that are malformed: section 8. None of them may reach an endpoint.

use super::{Heard::*, *};
use crate::tests::http::frames::*;

/// The stream ends; a server may answer first (section 8.1.1), or end the connection (section 5.4.1).
const MALFORMED: &[Heard] = &[Reset(1, PROTOCOL_ERROR), Answer(1, 400), GoAway(PROTOCOL_ERROR)];

pub(super) fn rows() -> Vec<Row> {
    [fields_rows(), pseudo(), targets(), lengths()].into_iter().flatten().collect()
}

fn whole(fields: &[(&str, &str)]) -> Vec<u8> {
    headers(1, END_STREAM | END_HEADERS, fields)
}

/// Sections 8.2.1 and 8.2.2.
fn fields_rows() -> Vec<Row> {
    let raw = |name: &[u8], value: &[u8]| {
        let fields = fields(&[METHOD, SCHEME, NEVER, AUTHORITY]);
        frame(HEADERS, END_STREAM | END_HEADERS, 1, [fields, literal(0, name, value)].concat())
    };
    let mut rows = vec![
        row("8.2 a name in upper case", &[never(&[("X-Test", "ok")])], MALFORMED),
        row("8.2.1 a name with a colon", &[never(&[("x:test", "ok")])], MALFORMED),
        row("8.2.1 a name with a space", &[never(&[("x test", "ok")])], MALFORMED),
        row("8.2.1 a name with a line feed", &[raw(b"x\ntest", b"ok")], MALFORMED),
        row("8.2.1 a name beyond ASCII", &[raw(b"x-\xc3\xa4", b"ok")], MALFORMED),
        row("8.2.1 an empty name", &[raw(b"", b"ok")], MALFORMED),
        row("8.2.1 CR in a value", &[raw(b"x-test", b"a\rb")], MALFORMED),
        row("8.2.1 LF in a value", &[raw(b"x-test", b"a\nb")], MALFORMED),
        row("8.2.1 NUL in a value", &[raw(b"x-test", b"a\0b")], MALFORMED),
        row("8.2.1 a value that begins with a space", &[raw(b"x-test", b" ab")], MALFORMED),
        row("8.2.1 a value that ends with a tab", &[raw(b"x-test", b"ab\t")], MALFORMED),
        row("8.2.2 TE other than trailers", &[never(&[("te", "trailers, deflate")])], MALFORMED),
        row(
            "8.2.2 TE of trailers",
            &[whole(&[METHOD, SCHEME, PATH, AUTHORITY, ("te", "trailers")])],
            &[Answer(1, 200)],
        ),
    ];
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        rows.push(row("8.2.2 a header of one connection", &[never(&[(name, value)])], MALFORMED));
    }
    rows
}

/// Section 8.3.
fn pseudo() -> Vec<Row> {
    let missing = |gone: &str| {
        let all = [METHOD, SCHEME, NEVER, AUTHORITY];
        let left: Vec<_> = all.into_iter().filter(|field| field.0 != gone).collect();
        whole(&left)
    };
    let late = |fields: &[(&str, &str)]| {
        [post(1), frame(DATA, 0, 1, "test"), headers(1, END_STREAM | END_HEADERS, fields)]
    };
    vec![
        row("8.3 an unknown pseudo-header", &[never(&[(":test", "ok")])], MALFORMED),
        row("8.3 one of answers", &[never(&[(":status", "200")])], MALFORMED),
        row(
            "8.3 one after a header",
            &[whole(&[METHOD, SCHEME, NEVER, ("x-test", "ok"), AUTHORITY])],
            MALFORMED,
        ),
        // h2 leaves it out instead (docs/reference/http.md, "Deviations").
        row("8.3 one in trailers", &late(&[(":method", "POST")]), &[Answer(1, 200)]),
        row("8.3.1 no method", &[missing(":method")], MALFORMED),
        row("8.3.1 no scheme", &[missing(":scheme")], MALFORMED),
        row("8.3.1 no path", &[missing(":path")], MALFORMED),
        row("8.3.1 nobody who is asked", &[missing(":authority")], MALFORMED),
        row("8.3.1 two methods", &[never(&[METHOD])], MALFORMED),
        row("8.3.1 two schemes", &[never(&[SCHEME])], MALFORMED),
        row("8.3.1 two paths", &[never(&[NEVER])], MALFORMED),
        row("8.3.1 two authorities", &[never(&[AUTHORITY])], MALFORMED),
        row(
            "8.1 HEADERS that do not end",
            &[
                post_never(),
                headers(1, END_HEADERS, &[("x-test", "ok")]),
                frame(DATA, END_STREAM, 1, "test"),
            ],
            MALFORMED,
        ),
    ]
}

/// The beginning of a request that never ends well.
fn post_never() -> Vec<u8> {
    headers(1, END_HEADERS, &[(":method", "POST"), SCHEME, NEVER, AUTHORITY])
}

/// Sections 8.3.1 and 8.5.
fn targets() -> Vec<Row> {
    let path = |path| whole(&[METHOD, SCHEME, (":path", path), AUTHORITY]);
    let authority = |authority| whole(&[METHOD, SCHEME, NEVER, (":authority", authority)]);
    let connect = |fields: &[(&str, &str)]| {
        headers(1, END_HEADERS, &[&[(":method", "CONNECT")], fields].concat())
    };
    vec![
        row("8.3.1 an empty path", &[path("")], MALFORMED),
        row("8.3.1 a path without slash", &[path("never")], MALFORMED),
        row("8.3.1 a path with a space", &[path("/never x")], MALFORMED),
        row("8.3.1 a path with a control character", &[path("/never\x01")], MALFORMED),
        row("8.3.1 a path that is a URI", &[path("http://cart/never")], MALFORMED),
        row(
            "8.3.1 an asterisk for GET",
            &[whole(&[METHOD, SCHEME, (":path", "*"), AUTHORITY])],
            MALFORMED,
        ),
        row(
            "8.3.1 an asterisk for OPTIONS",
            &[whole(&[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY])],
            &[Answer(1, 200)],
        ),
        row(
            "8.3.1 a method that is no token",
            &[whole(&[(":method", "GE T"), SCHEME, NEVER, AUTHORITY])],
            MALFORMED,
        ),
        row("8.3.1 an empty authority", &[authority("")], MALFORMED),
        row("8.3.1 user information", &[authority("me@cart")], MALFORMED),
        row("8.3.1 an authority with a path", &[authority("cart/x")], MALFORMED),
        row("8.3.1 a port that is none", &[authority("cart:x")], MALFORMED),
        row("8.3.1 Host that names another", &[never(&[("host", "other")])], MALFORMED),
        row("8.3.1 two hosts", &[never(&[("host", "cart"), ("host", "cart")])], MALFORMED),
        row(
            "8.3.1 Host that names the same",
            &[whole(&[METHOD, SCHEME, PATH, AUTHORITY, ("host", "Cart")])],
            &[Answer(1, 200)],
        ),
        row(
            "8.3.1 Host alone",
            &[whole(&[METHOD, SCHEME, PATH, ("host", "cart")])],
            &[Answer(1, 200)],
        ),
        row("8.5 CONNECT with a path", &[connect(&[NEVER, (":authority", "never:1")])], MALFORMED),
        row(
            "8.5 CONNECT with a scheme",
            &[connect(&[SCHEME, (":authority", "never:1")])],
            MALFORMED,
        ),
        row("8.5 CONNECT to nobody", &[connect(&[])], MALFORMED),
        row(
            "8.5 :protocol of another method",
            &[whole(&[METHOD, (":protocol", "websocket"), SCHEME, NEVER, AUTHORITY])],
            MALFORMED,
        ),
    ]
}

/// Section 8.1.1.
fn lengths() -> Vec<Row> {
    let announced = |length| {
        headers(
            1,
            END_HEADERS,
            &[(":method", "POST"), SCHEME, NEVER, AUTHORITY, ("content-length", length)],
        )
    };
    let data = |flags, text| frame(DATA, flags, 1, text);
    vec![
        row(
            "8.1.1 a body shorter than it says",
            &[announced("9"), data(END_STREAM, "test")],
            MALFORMED,
        ),
        row(
            "8.1.1 a body longer than it says",
            &[announced("1"), data(END_STREAM, "test")],
            MALFORMED,
        ),
        row(
            "8.1.1 several frames, shorter",
            &[announced("9"), data(0, "test"), data(END_STREAM, "test")],
            MALFORMED,
        ),
        row("8.1.1 no body where there should be", &[never(&[("content-length", "9")])], MALFORMED),
        row(
            "8.1.1 a length that is no number",
            &[announced("+4"), data(END_STREAM, "test")],
            MALFORMED,
        ),
        row(
            "8.1.1 two lengths",
            &[never(&[("content-length", "0"), ("content-length", "0")])],
            MALFORMED,
        ),
    ]
}
