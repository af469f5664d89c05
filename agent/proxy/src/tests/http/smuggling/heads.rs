//! Lines of a head: RFC 9112, sections 2 to 5.

use super::*;

fn get(line: &str) -> String {
    format!("{line}\r\nHost: cart\r\nX-Row: $\r\n\r\n")
}

fn with(field: &str) -> String {
    format!("GET /$ HTTP/1.1\r\nHost: cart\r\n{field}\r\n\r\n")
}

pub(super) fn rows() -> Vec<Row> {
    [request_lines(), versions(), fields(), sizes()].into_iter().flatten().collect()
}

fn request_lines() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in [
        "GET  /$ HTTP/1.1",
        "GET /$  HTTP/1.1",
        "GET /$ HTTP/1.1 ",
        "GET /$ HTTP/1.1\t",
        "GET\t/$ HTTP/1.1",
        "GET /$\tHTTP/1.1",
        "GET\x0b/$ HTTP/1.1",
        " GET /$ HTTP/1.1",
        "GET /$",
        "GET",
        "GET HTTP/1.1",
        "/$ HTTP/1.1",
        "GET /$ HTTP/1.1 HTTP/1.1",
        "GET /$ x HTTP/1.1",
        "GET /$\r HTTP/1.1",
        "GET /$ HTTP/1.1\r",
        "G(T /$ HTTP/1.1",
        "G\0T /$ HTTP/1.1",
        "GET: /$ HTTP/1.1",
        "\"GET\" /$ HTTP/1.1",
        "G\u{c4}T /$ HTTP/1.1",
        "\0GET /$ HTTP/1.1",
        "HTTP/1.1 200 OK",
    ] {
        rows.push(refused(line, get(line)));
    }
    rows.push(refused("a head whose lines end with LF", "GET /$ HTTP/1.1\nHost: cart\n\n"));
    rows.push(refused("a line feed before the request", format!("\n{}", get("GET /$ HTTP/1.1"))));
    rows.push(refused("a head that ends with LF", "GET /$ HTTP/1.1\r\nHost: cart\r\n\n"));
    rows.push(refused(
        "a head that ends with LF and CR",
        "GET /$ HTTP/1.1\r\nHost: cart\r\n\n\r\n",
    ));
    let apart = get("GET /$ HTTP/1.1") + "\r\n\r\n" + &get("GET /$second HTTP/1.1");
    rows.push(passes("empty lines before a request", apart, &["GET /$", "GET /$second"]));
    for (name, method, passed) in [
        ("a method of one's own", "M-SEARCH", "M-SEARCH /$"),
        ("a method in lower case", "get", "get /$"),
        ("a method of many signs", "!#%&'*+-.^_`|~", "!#%&'*+-.^_`|~ /$"),
    ] {
        rows.push(passes(name, get(&format!("{method} /$ HTTP/1.1")), &[passed]));
    }
    rows
}

fn versions() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in [
        "GET /$ HTTP/1.2",
        "GET /$ HTTP/2.0",
        "GET /$ HTTP/0.9",
        "GET /$ HTTP/9.9",
        "GET /$ HTTP/1",
        "GET /$ HTTP/1.",
        "GET /$ HTTP/1.10",
        "GET /$ HTTP/01.1",
        "GET /$ HTTP/1.1x",
        "GET /$ HTTP/+1.1",
        "GET /$ HTTP 1.1",
        "GET /$ http/1.1",
        "GET /$ HTTPS/1.1",
        "GET /$ ICY/1.1",
    ] {
        rows.push(refused(line, get(line)));
    }
    rows
}

fn fields() -> Vec<Row> {
    let mut rows = Vec::new();
    for field in [
        "X : y",
        "X\t: y",
        "X",
        ": y",
        "X y: z",
        "X(: y",
        "X\0: y",
        "X\u{e4}: y",
        "X\x7f: y",
        "X: \0",
        "X: a\0b",
        "X: a\rb",
        "X: a\nb",
        "X: a\nY: b",
        "X: a\n",
        "X: a\r",
        "X: a\x01",
        "X: a\x7f",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X:\r\n y",
        "X: a\r\n \r\nY: b",
    ] {
        rows.push(refused(field, with(field)));
    }
    for field in [
        "X:",
        "X: ",
        "X:y",
        "X: \ty\t ",
        "X: \u{e4}",
        "X: a\tb",
        "X: :",
        "X_y: z",
        "!#%&'*+-.^_`|~1: y",
    ] {
        rows.push(passes(field, with(field), &["GET /$"]));
    }
    rows
}

fn sizes() -> Vec<Row> {
    let too_large = |name, says: String| Row { end: End::Refused(&[431]), ..refused(name, says) };
    let many = "X: y\r\n".repeat(101);
    vec![
        too_large("a header of 64 KiB", with(&format!("X: {}", "y".repeat(64 << 10)))),
        too_large("a name of 64 KiB", with(&format!("{}: y", "x".repeat(64 << 10)))),
        too_large(
            "headers of 64 KiB",
            with(format!("X: {}\r\n", "y".repeat(1 << 10)).repeat(64).trim_end()),
        ),
        too_large("more than a hundred headers", with(many.trim_end())),
        Row {
            end: End::Refused(&[414, 431]),
            ..refused(
                "a target of 70 KiB",
                get(&format!("GET /${} HTTP/1.1", "x".repeat(70 << 10))),
            )
        },
        passes("a header of 50 KiB", with(&format!("X: {}", "y".repeat(50 << 10))), &["GET /$"]),
    ]
}
