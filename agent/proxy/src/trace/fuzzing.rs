//! What a client says about its trace, for `tests/fuzz`.

use http::HeaderMap;

use super::{Context, Sampling, incoming::Incoming};

/// Where a request stands in its trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Placed {
    /// The trace.
    pub trace_id: String,
    /// Whoever the next one's parent is.
    pub span_id: String,
    /// A span is made of the request.
    pub recorded: bool,
}

/// Reads what came and writes what is passed on. Of traces that nobody has decided about, all are
/// recorded or none.
pub fn pass(headers: &mut HeaderMap, all: bool) -> Option<Placed> {
    let sampling = Sampling::percent(if all { 100.0 } else { 0.0 })?;
    let context = Context::begin(Incoming::read(headers), sampling);
    context.write(headers);
    Some(Placed {
        trace_id: context.trace_id.to_string(),
        span_id: context.span_id.to_string(),
        recorded: context.is_recorded(),
    })
}
