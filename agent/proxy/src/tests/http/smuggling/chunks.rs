//! Chunks: RFC 9112, section 7.1. Their heads may have passed already; then the request breaks off.

use super::*;

fn chunked(body: &str) -> String {
    format!("POST /$ HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn broken(name: &'static str, body: &str) -> Row {
    Row { name, says: chunked(body).into(), passes: Vec::new(), end: End::Broken }
}

fn whole(name: &'static str, body: &str) -> Row {
    passes(name, chunked(body), &["POST /$ hello"])
}

pub(super) fn rows() -> Vec<Row> {
    [sizes(), extensions(), data(), trailers()].into_iter().flatten().collect()
}

fn sizes() -> Vec<Row> {
    let mut rows = Vec::new();
    for size in [
        "",
        " 5",
        "5 ",
        "\t5",
        "5\t",
        "+5",
        "-5",
        "0x5",
        "5x",
        "5h",
        "5.",
        "5_",
        "5,",
        "g",
        "\u{ff15}",
        "5\0",
        "\x0b5",
        "5\x0b",
        "FFFFFFFFFFFFFFFFF",
        "10000000000000005",
        "100000000000000000000000000000005",
        "FFFFFFFFFFFFFFFF",
        "8000000000000005",
        "0000000000000000000000000000000000000005",
    ] {
        let row = broken("the size of a chunk", &format!("{size}\r\nhello\r\n0\r\n\r\n"));
        rows.push(row);
    }
    for size in ["5", "05", "000005"] {
        rows.push(whole("a size", &format!("{size}\r\nhello\r\n0\r\n\r\n")));
    }
    rows.push(whole("a size in either case", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n"));
    rows.push(whole("a last chunk of several digits", "5\r\nhello\r\n000\r\n\r\n"));
    rows
}

fn extensions() -> Vec<Row> {
    let mut rows = Vec::new();
    for extension in
        ["\n", ";\n", ";x\n", ";x=y\n", ";x\ry", ";x=\"\n\"", ";x\0", ";x\x7f", " x", "x;y", " =x"]
    {
        let row = broken("an extension", &format!("5{extension}\r\nhello\r\n0\r\n\r\n"));
        rows.push(row);
    }
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(2000));
    rows.push(broken("an extension that is too long", &long));
    rows.push(broken("a line of a chunk that ends without CR", "5\nhello\r\n0\r\n\r\n"));
    for extension in [";x", ";x=y", " ; x=y", ";x=\"y z\"", ";"] {
        rows.push(whole("an extension", &format!("5{extension}\r\nhello\r\n0;x\r\n\r\n")));
    }
    rows
}

fn data() -> Vec<Row> {
    vec![
        broken("a chunk that is longer than it says", "4\r\nhello\r\n0\r\n\r\n"),
        broken("a chunk that is shorter than it says", "6\r\nhello\r\n0\r\n\r\n"),
        broken("a chunk that ends with LF", "5\r\nhello\n0\r\n\r\n"),
        broken("a chunk that ends with CR", "5\r\nhello\r0\r\n\r\n"),
        broken("a chunk without an end", "5\r\nhello0\r\n\r\n"),
        broken("an empty line between chunks", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ]
}

fn trailers() -> Vec<Row> {
    let mut rows = Vec::new();
    for trailer in [
        "X: y\n",
        "X : y\r\n",
        " X: y\r\n",
        "X: y\r\n z\r\n",
        "X: y\rz\r\n",
        "X: \0\r\n",
        "X\r\n",
        ": y\r\n",
        "X y: z\r\n",
        "\n",
    ] {
        let row = broken("a trailer", &format!("5\r\nhello\r\n0\r\n{trailer}\r\n"));
        rows.push(row);
    }
    let many = "X: y\r\n".repeat(20_000);
    rows.push(broken("too many trailers", &format!("5\r\nhello\r\n0\r\n{many}\r\n")));
    for name in ["X", "Content-Length", "Transfer-Encoding", "Host", "Connection", "Cookie"] {
        rows.push(whole("a trailer", &format!("5\r\nhello\r\n0\r\n{name}: 1\r\n\r\n")));
    }
    rows
}
