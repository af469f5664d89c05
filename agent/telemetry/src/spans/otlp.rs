//! OTLP's messages about traces, as far as they are written here (`opentelemetry/proto/trace/v1/trace.proto`,
//! `collector/trace/v1/trace_service.proto`). Field numbers are those of version 1 of the protocol.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::Message;

use super::{
    Attribute, Event as SpanEvent, Resource as SpanResource, Span as Recorded, SpanKind,
    Value as Given,
};

/// Path of the method that takes spans.
pub(super) const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `trace_flags` of a sampled span, and that it is known whether its parent is remote.
const SAMPLED: u32 = 0x01;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "bytes", tag = "1")]
    trace_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    span_id: Bytes,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "bytes", tag = "4")]
    parent_span_id: Bytes,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    time: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    message: String,
}

/// The message that carries these spans.
pub(super) fn request(spans: Vec<Recorded>) -> Bytes {
    let mut groups: Vec<(Arc<SpanResource>, Vec<Span>)> = Vec::new();
    for recorded in spans {
        let resource = Arc::clone(&recorded.resource);
        let span = span(recorded);
        match groups.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &resource) || *of == resource) {
            Some((_, group)) => group.push(span),
            None => groups.push((resource, vec![span])),
        }
    }
    let resource_spans = groups.into_iter().map(|(resource, spans)| ResourceSpans {
        resource: Some(Resource { attributes: attributes(resource.0.clone()) }),
        scope_spans: vec![ScopeSpans {
            scope: Some(Scope {
                name: "undermesh".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            spans,
        }],
    });
    Request { resource_spans: resource_spans.collect() }.encode_to_vec().into()
}

/// How many spans an answer says it has not taken, and why; `None` for bytes that are no answer.
pub(super) fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let partial = Response::decode(answer).ok()?.partial_success.unwrap_or_default();
    Some((u64::try_from(partial.rejected).unwrap_or(0), partial.message))
}

fn span(span: Recorded) -> Span {
    let remote = if span.parent.is_some() { IS_REMOTE } else { 0 };
    Span {
        trace_id: Bytes::copy_from_slice(span.trace_id.bytes()),
        span_id: Bytes::copy_from_slice(span.span_id.bytes()),
        trace_state: span.state,
        parent_span_id: span
            .parent
            .map_or_else(Bytes::new, |parent| Bytes::copy_from_slice(parent.bytes())),
        name: span.name,
        kind: match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start: nanoseconds(span.start),
        end: nanoseconds(span.end),
        attributes: attributes(span.attributes),
        events: span.events.into_iter().map(event).collect(),
        status: span.error.map(|message| Status { message, code: 2 }),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
    }
}

fn event(event: SpanEvent) -> Event {
    Event {
        time: nanoseconds(event.time),
        name: event.name.into_owned(),
        attributes: attributes(event.attributes),
    }
}

fn attributes(attributes: Vec<Attribute>) -> Vec<KeyValue> {
    let pair = |(key, value): Attribute| {
        let value = match value {
            Given::Text(text) => Value::Text(text),
            Given::Number(number) => Value::Number(number),
            Given::Flag(flag) => Value::Flag(flag),
        };
        KeyValue { key: key.into_owned(), value: Some(AnyValue { value: Some(value) }) }
    };
    attributes.into_iter().map(pair).collect()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
