//! Whom a request is for: RFC 9112, section 3.2.

use super::*;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: cart\r\nX-Row: $\r\n\r\n")
}

fn hosts(fields: &str) -> String {
    format!("GET /$ HTTP/1.1\r\n{fields}\r\n")
}

pub(super) fn rows() -> Vec<Row> {
    [forms(), hosts_rows(), connect()].into_iter().flatten().collect()
}

fn forms() -> Vec<Row> {
    let mut rows = Vec::new();
    for target in [
        "cart",
        "cart:80",
        "$",
        "*",
        "**",
        "*/$",
        "?$",
        "#$",
        "/$#x",
        "/$?x#y",
        "http://cart/$#x",
        "/$\0",
        "/$\x01",
        "/$\x7f",
        "http://me@cart/$",
        "http://me:secret@cart/$",
        "http://cart:x/$",
        "http://cart:99999/$",
        "http://cart:+80/$",
        "http:///$",
        "http://",
        "http:/$",
        "://cart/$",
        "http://[::1/$",
        "http://a b/$",
    ] {
        rows.push(refused(target, get(target)));
    }
    rows.extend([
        passes("an absolute target", get("http://cart/$"), &["GET /$"]),
        passes("a query without a path", get("http://cart?$"), &["GET /?$"]),
        passes("an asterisk", get("*").replacen("GET", "OPTIONS", 1), &["OPTIONS *"]),
        passes("slashes and dots within a query", get("/$?/../%2e%2e//"), &["GET /$?/../%2e%2e//"]),
        passes("encoded ends of lines", get("/$%0d%0aX:%20y"), &["GET /$%0d%0aX:%20y"]),
    ]);
    rows
}

fn hosts_rows() -> Vec<Row> {
    let mut rows = vec![
        refused("no Host", hosts("")),
        refused("no Host for an absolute target", "GET http://cart/$ HTTP/1.1\r\n\r\n"),
    ];
    for fields in [
        "Host:\r\n",
        "Host: cart\r\nHost: cart\r\n",
        "Host: cart\r\nHost: other\r\n",
        "Host: cart\r\nhost:\r\n",
        "Host: a b\r\n",
        "Host: cart, other\r\n",
        "Host: cart:x\r\n",
        "Host: cart:-1\r\n",
        "Host: cart:+80\r\n",
        "Host: cart:65536\r\n",
        "Host: cart:80:80\r\n",
        "Host: cart/x\r\n",
        "Host: cart?x\r\n",
        "Host: cart#x\r\n",
        "Host: cart\\x\r\n",
        "Host: me@cart\r\n",
        "Host: @cart\r\n",
        "Host: http://cart\r\n",
        "Host: [::1\r\n",
        "Host: [::1]x\r\n",
        "Host: ::1\r\n",
        "Host: \"cart\"\r\n",
        "Host: c\u{e4}rt\r\n",
        "Host : cart\r\n",
        " Host: cart\r\n",
        "X: y\r\n Host: cart\r\n",
        "Host: cart\0\r\n",
    ] {
        rows.push(refused(fields, hosts(fields)));
    }
    for fields in ["Host: me@cart\r\n", "Host: a b\r\n", "Host: cart\r\nHost: cart\r\n"] {
        let says = hosts(fields).replacen("/$", "http://cart/$", 1);
        rows.push(refused("a Host that is none, and an absolute target", says));
    }
    for fields in [
        "Host: cart:80\r\n",
        "Host: [::1]:80\r\n",
        "Host: 10.0.0.1\r\n",
        "Host: CART.shop.\r\n",
        "HOST:cart\r\n",
    ] {
        rows.push(passes(fields, hosts(fields), &["GET /$"]));
    }
    rows.push(passes("no Host in HTTP/1.0", "GET /$ HTTP/1.0\r\n\r\n", &["GET /$"]));
    rows.push(passes(
        "an absolute target goes before Host",
        hosts("Host: other\r\n").replacen("/$", "http://cart/$", 1),
        &["GET /$"],
    ));
    rows
}

fn connect() -> Vec<Row> {
    let mut rows = Vec::new();
    for target in [
        "/$",
        "*",
        "$",
        "$:",
        "$:0",
        "$:x",
        "$:65536",
        "me@$:80",
        "http://$:80",
        "http://$:80/",
        "$:80/",
        "$:80?x",
    ] {
        let says = get(target).replacen("GET", "CONNECT", 1);
        // The judging edge passes no CONNECT at all, which it may say first.
        rows.push(Row { end: End::Refused(&[400]), ..refused(target, says) });
    }
    for field in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let says = format!("CONNECT $:80 HTTP/1.1\r\nHost: cart\r\n{field}\r\n\r\nhello");
        rows.push(refused("CONNECT with a body", says));
    }
    rows
}
