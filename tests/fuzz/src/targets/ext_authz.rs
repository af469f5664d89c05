//! Authorizers and what they answer, over gRPC and over HTTP: a request passes only where a naive reader of the
//! answer says so, as that reader has changed it; and what is asked is what the request says.

mod answer;
mod protobuf;
mod question;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, request::Parts};
use undermesh_model::{HttpAuthorizer, TextMatch};
use undermesh_proxy::fuzzing::guard::ext_authz::{self, Outcome, Refusal};

use self::{
    answer::{FIXED, Headers, Meaning, apply},
    protobuf::{numbered, sized},
};
use crate::source::{Source, spell};

/// Names, values and pieces of messages.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"x-user",
    b"X-User",
    b"x-group",
    b"host",
    b":path",
    b"connection",
    b"content-length",
    b"x-forwarded-client-cert",
    b"transfer-encoding",
    b"x-envoy-auth-headers-to-remove",
    b"x-envoy-auth-partial-body",
    b"cookie",
    b"location",
    b"authorization",
    b",",
    b" ",
    b"\r\n",
    b"you",
    b"a=b&c",
    b"%20",
    b"\x08\x07",
    b"\x0a\x02\x08\x07",
    b"\x12\x00",
    b"\x1a\x00",
    b"\x12\x02\x08\x01",
    b"\x0a",
    b"\x12",
    b"\x1a\x04",
    b"\x2a\x06cookie",
    b"\x32\x00",
    b"\x3a\x04\x0a\x01a\x12\x01b",
    b"\x42\x01a",
    b"\x0b\x0c",
    b"\x0b",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    &[0x5b; 60],
    &[b'v'; 200],
];

const NAMES: [&str; 14] = [
    "x-user",
    "x-group",
    "cookie",
    "authorization",
    "location",
    "connection",
    "keep-alive",
    "content-length",
    "x-forwarded-client-cert",
    "x-envoy-auth-headers-to-remove",
    "x-envoy-auth-partial-body",
    "te",
    "set-cookie",
    "grpc-status",
];

/// Longest target that is compared: others may be too long for any.
const LONGEST: usize = 60_000;

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    match source.below(4) {
        0 => over_grpc(&mut source),
        1 => over_http(&mut source),
        2 => question::asked(&mut source),
        _ => question::shown(&mut source),
    }
}

fn over_grpc(source: &mut Source<'_>) {
    let Some(request) = request(source) else { return };
    let status = source.pick(&[200, 200, 200, 200, 204, 302, 500]);
    let shape = source.byte();
    let mut headers = HeaderMap::new();
    let mut trailers = HeaderMap::new();
    let mut told = Vec::new();
    for bit in [1, 2, 4] {
        if shape & bit > 0 {
            let value = source.pick(&["0", "0", "0", "7", "00", "", " 0", "x"]);
            let list = if bit == 2 { &mut headers } else { &mut trailers };
            list.append("grpc-status", HeaderValue::from_static(value));
            told.push(value);
        }
    }
    let content = content(source, shape & 8 > 0);
    let answered = status == 200 && !told.is_empty() && told.iter().all(|told| *told == "0");
    let status = StatusCode::from_u16(status).expect("a status");
    let parts = (status, &headers, &trailers);
    let outcome = ext_authz::grpc_answer(parts, &content, (request.clone(), application()));
    if !answered {
        assert!(matches!(outcome, Outcome::Failed), "{status} {told:?}: {outcome:?}");
        return;
    }
    compare(outcome, Meaning::of_grpc(&content), request);
}

/// A message, as it is or with a prefix that fits.
fn content(source: &mut Source<'_>, as_it_is: bool) -> Vec<u8> {
    let message = source.spelled(DICTIONARY);
    if as_it_is { message } else { prefixed(&message) }
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

fn over_http(source: &mut Source<'_>) {
    let Some(request) = request(source) else { return };
    let rule = http_rule(source);
    let status = source.pick(&[200, 200, 200, 101, 204, 302, 401, 403, 500, 503, 600, 999]);
    let headers = headers(source);
    let body = source.rest();
    let outcome = ext_authz::http_answer(
        &rule,
        (StatusCode::from_u16(status).expect("a status"), &headers),
        Bytes::copy_from_slice(body),
        (request.clone(), application()),
    );
    if (500..600).contains(&status) {
        assert!(matches!(outcome, Outcome::Failed), "{status}: {outcome:?}");
        return;
    }
    let is_any = |patterns: &[TextMatch], name: &str| {
        patterns.iter().any(|pattern| match pattern {
            TextMatch::Exact(exact) => name == exact,
            TextMatch::Prefix(prefix) => name.starts_with(prefix.as_str()),
            TextMatch::Suffix(suffix) => name.ends_with(suffix.as_str()),
            TextMatch::Present => true,
        })
    };
    let wants = |name: &str, of_answer: bool| match (status, of_answer) {
        (200, true) => is_any(&rule.downstream_on_allow, name),
        (200, false) => is_any(&rule.upstream_on_allow, name),
        _ => {
            let patterns = &rule.downstream_on_deny;
            let always = ["location", "www-authenticate"].contains(&name);
            always || patterns.is_empty() || is_any(patterns, name)
        }
    };
    let meant = Meaning::of_http(status, &listed(&headers), body, wants);
    compare(outcome, meant.filter(|_| (200..600).contains(&status)), request);
}

/// What the proxy makes of an answer is what it means.
fn compare(outcome: Outcome, meant: Option<Meaning>, request: Parts) {
    let Some(meant) = meant else {
        assert!(matches!(outcome, Outcome::Unusable), "{outcome:?} was to be unusable");
        return;
    };
    if let Some(status) = meant.refused {
        let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}, not {status}") };
        refused(&refusal, status, &meant);
        return;
    }
    let query = meant.query(request.uri.query());
    let is_new = query.as_deref() != request.uri.query();
    // What is about no path has no query either.
    let nowhere = is_new && request.uri.path() == "*";
    if nowhere || query.as_ref().is_some_and(|query| query.len() > LONGEST) {
        assert!(nowhere || !matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        return;
    }
    let Outcome::Passes(passed) = outcome else { panic!("{outcome:?}, and it was to pass") };
    let (passed, answer) = *passed;
    assert_eq!(passed.method, request.method);
    assert_eq!(passed.uri.authority(), request.uri.authority());
    assert_eq!(passed.uri.scheme(), request.uri.scheme());
    assert_eq!(passed.uri.path(), request.uri.path());
    assert_eq!(passed.uri.query().map(str::to_owned), query);
    let (before, after) = (listed(&request.headers), listed(&passed.headers));
    for name in FIXED {
        assert_eq!(before.get(name), after.get(name), "{name} was changed");
    }
    assert_eq!(after, meant.request(before));
    assert_eq!(listed(&answer), apply(&meant.answer, listed(&application())));
}

fn refused(refusal: &Refusal, status: u16, meant: &Meaning) {
    assert_eq!(refusal.status, status);
    assert!((200..600).contains(&refusal.status), "{refusal:?}");
    let headers = listed(&refusal.headers);
    assert!(FIXED.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
    assert_eq!(headers, apply(&meant.headers, Headers::new()));
    let bare = [204, 205, 304].contains(&status);
    assert_eq!(refusal.body, if bare { &[][..] } else { &meant.body[..] });
}

/// Headers of the application's answer.
fn application() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append("x-user", HeaderValue::from_static("app"));
    headers.append("set-cookie", HeaderValue::from_static("a=1"));
    headers.append("set-cookie", HeaderValue::from_static("b=2"));
    headers.append("content-length", HeaderValue::from_static("5"));
    headers
}

/// A request that would be asked about.
pub(super) fn request(source: &mut Source<'_>) -> Option<Parts> {
    let target = source.pick(&["/", "/a?b=c&d", "/a?a=1&a=2&b", "/p%20q?", "*", "/?&&x==y&"]);
    let method = if target == "*" { "OPTIONS" } else { source.pick(&["GET", "POST", "PURGE"]) };
    let mut builder = Request::builder().method(method).uri(target).header("host", "shop:80");
    for (name, value) in &headers(source) {
        // Framing was judged before.
        if name != "content-length" {
            builder = builder.header(name, value);
        }
    }
    let length = source.pick(&["", "5", "0", "18446744073709551615"]);
    if !length.is_empty() {
        builder = builder.header("content-length", length);
    }
    let parts = builder.body(()).ok()?.into_parts().0;
    let mut parts = ext_authz::head(parts, ([10, 0, 0, 1], 80).into())?;
    // Chosen at random, if the client has not.
    parts.headers.insert("x-request-id", HeaderValue::from_static("0-1"));
    Some(parts)
}

fn headers(source: &mut Source<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for _ in 0..source.below(8) {
        let name = HeaderName::from_static(source.pick(&NAMES));
        let value = Source::new(source.raw(24)).spelled(DICTIONARY);
        headers.extend(HeaderValue::from_bytes(&value).ok().map(|value| (name, value)));
    }
    headers
}

/// Headers by name.
pub(super) fn listed(headers: &HeaderMap) -> Headers {
    let mut listed = Headers::new();
    for (name, value) in headers {
        let values = listed.entry(name.as_str().to_owned()).or_default();
        values.push(value.as_bytes().to_vec());
    }
    listed
}

pub(super) fn http_rule(source: &mut Source<'_>) -> HttpAuthorizer {
    let mut patterns = || {
        let lists: [&[&str]; 6] = [
            &[],
            &["x-user"],
            &["x-*"],
            &["*"],
            &["cookie", "*-cookie"],
            &["connection", "x-group"],
        ];
        source.pick(&lists).iter().map(|text| TextMatch::parse(text)).collect()
    };
    HttpAuthorizer {
        request_headers: patterns(),
        upstream_on_allow: patterns(),
        downstream_on_deny: patterns(),
        downstream_on_allow: patterns(),
        path_prefix: source.pick(&["", "/check", "/check/"]).to_owned(),
        additional_headers: vec![("x-from".to_owned(), "mesh".to_owned())],
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let header = |name: &str, value: &str, rest: &[u8]| {
        let header = [sized(1, name), sized(2, value)].concat();
        [sized(1, header), rest.to_vec()].concat()
    };
    let append = sized(2, numbered(1, 1));
    let ok = [
        sized(2, header("X-User", "you", &[])),
        sized(2, header("x-group", "b", &append)),
        sized(2, header("host", "elsewhere", &[])),
        sized(2, header("x-forwarded-client-cert", "forged", &[])),
        sized(5, "cookie"),
        sized(5, ":path"),
        sized(6, header("set-cookie", "c=3", &numbered(3, 0))),
        sized(6, header("x-user", "d", &numbered(3, 1))),
        sized(7, [sized(1, "a"), sized(2, "b c")].concat()),
        sized(8, "b"),
    ]
    .concat();
    let denied =
        [sized(1, numbered(1, 401)), sized(2, header("location", "/login", &[])), sized(3, "no")]
            .concat();
    let status = |code| sized(1, [numbered(1, code), sized(2, "m")].concat());
    let messages = [
        Vec::new(),
        [status(0), sized(3, &ok)].concat(),
        [status(7), sized(2, &denied)].concat(),
        [status(16), sized(3, &ok), sized(4, sized(1, "metadata"))].concat(),
        [sized(2, &denied), sized(3, &ok)].concat(),
        [sized(3, &ok), sized(3, &ok), numbered(200, 5)].concat(),
        [sized(2, sized(1, numbered(1, 70_000))), status(7)].concat(),
    ];
    let mut seeds = Vec::new();
    for (number, message) in messages.iter().enumerate() {
        let target = u8::try_from(number % 6).unwrap_or_default();
        // The target, the method, no headers, no length; a status, one that is good in the trailers.
        let head: &[u8] = if target == 4 { &[0, 4, 0, 0] } else { &[0, target, 0, 0, 0] };
        seeds.push([head, &[0, 1, 0], &spell(message, DICTIONARY)].concat());
    }
    // Over HTTP: headers of the request, patterns, a prefix, a status, headers of the answer, its content.
    for status in 0..12 {
        let fields = [5, 0, 1, 17, 5, 1, 0, 9, 3, 11, 14, 3, 12, 1, 17, 2, 1, 17];
        seeds.push(
            [&[1, 2, 0, 2, 0, 1, 17, 5, 1, 0, 1], &[3, 2, 4, 1, 0, status][..], &fields].concat(),
        );
    }
    for prefix in 0..3 {
        let fields = [4, 0, 1, 17, 2, 1, 18, 3, 1, 17, 10, 1, 17];
        seeds.push([&[2, prefix, 1][..], &fields, &[1, 3, 2, 2, 2, prefix, 1, 4, b'b']].concat());
        seeds.push(vec![3, 4, prefix, 1, 3, 1, b'a', 2, b'b', b'c', 1, b'd']);
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::{
        answer::{Change, How},
        *,
    };

    fn changed(name: &str, how: How) -> Change {
        (name.to_owned(), b"v".to_vec(), how)
    }

    #[test]
    fn the_naive_reader_reads() {
        let option = sized(1, [sized(1, "X-A"), sized(2, "v")].concat());
        let message = [
            sized(1, numbered(1, 0)),
            sized(3, [sized(2, &option), sized(6, &option), sized(5, "Host")].concat()),
        ]
        .concat();
        let meant = Meaning::of_grpc(&prefixed(&message)).expect("a message");
        assert_eq!(meant.refused, None);
        assert_eq!(meant.headers, [changed("x-a", How::Set)]);
        assert_eq!(meant.answer, [changed("x-a", How::Append)]);
        assert!(meant.remove.is_empty(), "what may not be removed");
        assert!(Meaning::of_grpc(&prefixed(&message)[..9]).is_none());
        let refusal = sized(2, sized(1, numbered(1, 401)));
        let refused = Meaning::of_grpc(&prefixed(&[sized(1, numbered(1, 7)), refusal].concat()));
        assert_eq!(refused.expect("a message").refused, Some(401));
    }

    #[test]
    fn most_seeds_come_to_their_end() {
        // A seed that is refused on its way tests nothing.
        let passes = seeds().iter().filter(|seed| seed[0] == 0).count();
        assert_eq!(passes, 7);
        let mut source = Source::new(&[1, 0, 0, 0]);
        assert!(request(&mut source).is_some());
    }
}
