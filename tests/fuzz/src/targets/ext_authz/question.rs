//! What an authorizer is asked: what the request says, and no more than it may see.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use http_body::{Body, Frame, SizeHint};
use undermesh_model::{CheckedBody, HttpAuthorizer, SpiffeId, TextMatch};
use undermesh_proxy::fuzzing::guard::ext_authz::{grpc_question, http_question, shown_body};

use super::{
    DICTIONARY, http_rule, listed,
    protobuf::{Value, fields},
    request,
};
use crate::source::Source;

const PARTIAL: &str = "x-envoy-auth-partial-body";

/// One request, asked about in both ways.
pub(super) fn asked(source: &mut Source<'_>) {
    let Some(parts) = request(source) else { return };
    let rule = http_rule(source);
    let (raw, more) = (source.flag(), source.flag());
    let body = source.flag().then(|| (Bytes::from(source.spelled(DICTIONARY)), more));
    over_grpc(&parts, body.as_ref(), raw);
    over_http(&parts, body.as_ref(), &rule);
}

fn over_grpc(parts: &Parts, body: Option<&(Bytes, bool)>, raw: bool) {
    let client: SocketAddr = ([10, 1, 0, 1], 4000).into();
    let server: SocketAddr = ([10, 1, 0, 2], 80).into();
    let identity = |name: &str| {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{name}");
        identity.parse::<SpiffeId>().expect("an identity")
    };
    let (source, own) = (identity("client"), identity("server"));
    let sent =
        grpc_question(parts.clone(), body.cloned(), raw, (client, server), (Some(&source), &own));
    let sent = sent.expect("a question");
    let (prefix, message) = sent.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(prefix[1..], u32::try_from(message.len()).expect("a length").to_be_bytes());
    let attributes = only(message, 1);
    let party = |number: u64| {
        let party = only(attributes, number);
        let socket = only(only(party, 1), 1);
        (text(socket, 2), number_of(socket, 3), text(party, 4))
    };
    assert_eq!(party(1), ("10.1.0.1".to_owned(), 4000, source.to_string()));
    assert_eq!(party(2), ("10.1.0.2".to_owned(), 80, own.to_string()));
    let http = only(only(attributes, 4), 2);
    let path = parts.uri.path_and_query().expect("a path").as_str();
    let authority = parts.uri.authority().expect("an authority").as_str();
    assert_eq!(text(http, 2), parts.method.as_str());
    assert_eq!(text(http, 4), path);
    assert_eq!(text(http, 5), authority);
    assert_eq!(text(http, 6), "http");
    let length = parts.headers.get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse::<i64>().ok());
    assert_eq!(number_of(http, 9) as i64, length.unwrap_or(-1));
    let mut expected: BTreeMap<String, String> = listed(&parts.headers)
        .into_iter()
        .map(|(name, values)| (name, String::from_utf8_lossy(&values.join(&b","[..])).into_owned()))
        .collect();
    expected.remove(PARTIAL);
    expected.extend(body.map(|(_, more)| (PARTIAL.to_owned(), more.to_string())));
    for (name, value) in [
        (":method", parts.method.as_str()),
        (":path", path),
        (":authority", authority),
        (":scheme", "http"),
    ] {
        expected.insert(name.to_owned(), value.to_owned());
    }
    let headers = fields(http, 0).expect("a message").into_iter().filter(|field| field.0 == 3);
    let headers: Vec<(String, String)> = headers
        .map(|(_, pair)| {
            let pair = pair.bytes().expect("a pair");
            (text(pair, 1), text(pair, 2))
        })
        .collect();
    assert_eq!(headers, expected.into_iter().collect::<Vec<_>>());
    let content = body.map(|(bytes, _)| bytes.clone()).unwrap_or_default();
    let (as_text, as_bytes) = (text(http, 11), all(http, 12));
    if raw {
        assert_eq!((as_text.as_str(), as_bytes), ("", content.to_vec()));
    } else {
        assert_eq!((as_text, as_bytes), (String::from_utf8_lossy(&content).into(), Vec::new()));
    }
}

fn over_http(parts: &Parts, body: Option<&(Bytes, bool)>, rule: &HttpAuthorizer) {
    let sent = http_question(parts.clone(), body.cloned(), rule);
    let path = parts.uri.path_and_query().expect("a path").as_str();
    let Some((sent, content)) = sent else {
        assert_eq!(path, "*", "nothing was asked");
        return;
    };
    assert_eq!(sent.method, parts.method);
    assert_eq!(sent.uri.authority(), parts.uri.authority());
    let target = sent.uri.path_and_query().expect("a path").as_str();
    assert_eq!(target, format!("{}{path}", rule.path_prefix));
    assert_eq!(content, body.map(|(bytes, _)| bytes.clone()).unwrap_or_default());
    assert_eq!(values(&sent.headers, "content-length"), [content.len().to_string().into_bytes()]);
    assert_eq!(values(&sent.headers, "x-from"), [b"mesh"]);
    let partial = body.map(|(_, more)| more.to_string().into_bytes());
    assert_eq!(values(&sent.headers, PARTIAL), partial.into_iter().collect::<Vec<_>>());
    let own = ["content-length", "x-from", PARTIAL];
    for (name, values) in listed(&sent.headers) {
        if own.contains(&name.as_str()) {
            continue;
        }
        let shown = rule.request_headers.iter().any(|pattern: &TextMatch| pattern.matches(&name));
        assert!(shown || name == "authorization", "{name} was shown");
        assert!(!["connection", "keep-alive", "upgrade"].contains(&name.as_str()), "{name}");
        if name != "te" {
            assert_eq!(Some(&values), listed(&parts.headers).get(&name), "{name}");
        }
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
}

/// The one field of this number.
fn only(message: &[u8], number: u64) -> &[u8] {
    let found = fields(message, 0).expect("a message").into_iter();
    let mut found = found.filter(|field| field.0 == number);
    let value = found.next().and_then(|field| field.1.bytes()).expect("a field");
    assert!(found.next().is_none(), "field {number} twice");
    value
}

/// All bytes of a field; none where it is not there.
fn all(message: &[u8], number: u64) -> Vec<u8> {
    let fields = fields(message, 0).expect("a message").into_iter();
    let found = fields.filter(|field| field.0 == number);
    found.flat_map(|field| field.1.bytes().expect("bytes").to_vec()).collect()
}

fn text(message: &[u8], number: u64) -> String {
    String::from_utf8(all(message, number)).expect("a text")
}

fn number_of(message: &[u8], number: u64) -> u64 {
    let found = fields(message, 0).expect("a message").into_iter().find(|field| field.0 == number);
    found.map(|field| field.1).and_then(Value::number).unwrap_or_default()
}

/// A body in pieces, that breaks off in the end or does not.
struct Pieces {
    pieces: VecDeque<Bytes>,
    breaks: bool,
    announced: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(match self.pieces.pop_front() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None => std::mem::take(&mut self.breaks).then(|| Err("it breaks off".into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.announced { SizeHint::with_exact(length) } else { SizeHint::new() }
    }
}

thread_local! {
    /// Has a clock, which nothing here waits for.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

/// The part of a body that is shown, and what is passed on afterwards.
pub(super) fn shown(source: &mut Source<'_>) {
    let rule = CheckedBody { max_bytes: source.below(9), partial: source.flag(), raw: false };
    let (breaks, announced) = (source.byte() == 7, source.flag());
    let mut pieces = VecDeque::new();
    while !source.is_empty() {
        pieces.push_back(Bytes::copy_from_slice(source.raw(16)));
    }
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    let body = Pieces { pieces, breaks, announced };
    let outcome = RUNTIME.with(|runtime| runtime.block_on(shown_body(body, &rule)));
    let longer = whole.len() > rule.max_bytes;
    match outcome {
        Err(413) => assert!(longer && !rule.partial, "{} bytes are not too many", whole.len()),
        Err(400) => assert!(breaks && !longer, "it has not broken off"),
        Err(status) => panic!("refused with {status}"),
        Ok(((shown, more), rest)) => {
            assert!(rule.partial || !longer, "more than may be seen");
            assert_eq!(shown, whole[..whole.len().min(rule.max_bytes)]);
            assert_eq!(more, longer);
            match rest {
                Ok(rest) => assert_eq!((rest.to_vec(), breaks), (whole, false)),
                Err(_) => assert!(breaks && longer, "it has broken off"),
            }
        }
    }
}
