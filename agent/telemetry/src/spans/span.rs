//! A span: what is known about one request at one place, when it is over.

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use super::{SpanId, TraceId};

/// A name of OpenTelemetry's, and what it has.
pub type Attribute = (Cow<'static, str>, Value);

/// What an attribute may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Which end of a request a span is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Where it is answered.
    Server,
    /// Where it is sent.
    Client,
}

/// Who has made spans: one for each workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource(pub Vec<Attribute>);

/// Something that has happened meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// What.
    pub name: Cow<'static, str>,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// A request as one place has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose it is.
    pub resource: Arc<Resource>,
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// Its own name.
    pub span_id: SpanId,
    /// The span that has caused it.
    pub parent: Option<SpanId>,
    /// What others have written about the trace (`tracestate`).
    pub state: String,
    /// What was done.
    pub name: String,
    /// Which end it is about.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// When it was over.
    pub end: SystemTime,
    /// What is known about it.
    pub attributes: Vec<Attribute>,
    /// What has happened meanwhile.
    pub events: Vec<Event>,
    /// Why it counts as failed, if it does.
    pub error: Option<String>,
}
