//! Where a request stands in its trace, and the headers that tell the next about it.

use http::{HeaderMap, HeaderName};
use undermesh_telemetry::{SpanId, TraceId};

use super::{
    Sampling,
    b3::B3,
    incoming::{
        B3_FLAGS, B3_PARENT, B3_SAMPLED, B3_SINGLE, B3_SPAN, B3_TRACE, Formats, Found, Incoming,
        TRACEPARENT, TRACESTATE,
    },
    new_span_id, new_trace_id,
    w3c::TraceParent,
};
use crate::short;

/// A request's place in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace_id: TraceId,
    /// Our own span, or the caller's where we record none: the next one's parent has to be one that may exist.
    pub(crate) span_id: SpanId,
    pub(crate) parent: Option<SpanId>,
    /// What others have written about the trace.
    pub(crate) state: String,
    sampled: bool,
    debug: bool,
    random: bool,
    formats: Formats,
    short: bool,
}

impl Context {
    /// The caller's decision holds; where there is none, the share does.
    pub(super) fn begin(incoming: Incoming, sampling: Sampling) -> Self {
        let Incoming { ids, grandparent, sampled, debug, state, short, .. } = incoming;
        let trace_id = ids.map_or_else(new_trace_id, |(trace_id, _)| trace_id);
        let sampled = sampled.unwrap_or_else(|| sampling.takes(trace_id));
        let (span_id, parent) = match ids {
            Some((_, caller)) if sampled => (new_span_id(), Some(caller)),
            Some((_, caller)) => (caller, grandparent),
            None => (new_span_id(), None),
        };
        let mut formats = incoming.formats;
        formats.w3c |= formats.none();
        // A name that we have made up is random as a whole.
        let random = incoming.random || ids.is_none();
        Self { trace_id, span_id, parent, state, sampled, debug, random, formats, short }
    }

    /// Whether a span is made of the request.
    pub(crate) fn is_recorded(&self) -> bool {
        self.sampled
    }

    /// Writes the formats that came, and W3C's where none did; others, and malformed ones, are removed.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Self { trace_id, span_id, sampled, random, .. } = *self;
        let parent = TraceParent { trace_id, span_id, sampled, random };
        let found = Found::in_head(headers);
        if found.are(&[TRACEPARENT]) && self.is_only_parent() && is_all(headers, &parent.format()) {
            // Most are: of a request that is not recorded, the next one's parent is the caller.
            return;
        }
        for name in found.names() {
            headers.remove(name);
        }
        let mut set = |name: HeaderName, value: &[u8]| {
            // Digits, dashes, and a list that was checked are valid in a header.
            if let Some(value) = short::value(value) {
                headers.insert(name, value);
            }
        };
        if self.formats.w3c {
            set(TRACEPARENT, &parent.format());
            if !self.state.is_empty() {
                set(TRACESTATE, self.state.as_bytes());
            }
        }
        if !(self.formats.b3 || self.formats.b3_several) {
            return;
        }
        let trace = B3::trace_text(self.trace_id, self.short);
        if self.formats.b3 {
            let state = if self.debug { "d" } else { self.flag() };
            let parent = self.parent.map(|parent| format!("-{parent}")).unwrap_or_default();
            set(B3_SINGLE, format!("{trace}-{}-{state}{parent}", self.span_id).as_bytes());
        }
        if self.formats.b3_several {
            set(B3_TRACE, trace.as_bytes());
            set(B3_SPAN, &self.span_id.digits());
            if let Some(parent) = self.parent {
                set(B3_PARENT, &parent.digits());
            }
            if self.debug {
                set(B3_FLAGS, b"1");
            } else {
                set(B3_SAMPLED, self.flag().as_bytes());
            }
        }
    }

    /// Whether nothing but `traceparent` is to be written.
    fn is_only_parent(&self) -> bool {
        let parent = Formats { w3c: true, ..Formats::default() };
        self.formats == parent && self.state.is_empty()
    }

    fn flag(&self) -> &'static str {
        if self.sampled { "1" } else { "0" }
    }
}

/// Whether this is the one `traceparent`.
fn is_all(headers: &HeaderMap, parent: &[u8]) -> bool {
    headers.get_all(TRACEPARENT).into_iter().eq([parent])
}
