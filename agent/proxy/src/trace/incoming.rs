//! What a request's headers say about its trace. Malformed ones say nothing, and are not passed on.

use http::{HeaderMap, HeaderName, HeaderValue};
use undermesh_telemetry::{SpanId, TraceId};

use super::{
    b3::{B3, Several},
    state,
    w3c::TraceParent,
};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(super) const B3_SINGLE: HeaderName = HeaderName::from_static("b3");
pub(super) const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// All of them. In one place: to make eight names and to drop them costs more than to look at them.
static NAMES: [HeaderName; 8] =
    [TRACEPARENT, TRACESTATE, B3_SINGLE, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS];

static SEVERAL: [HeaderName; 5] = [B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS];

/// Those that stand in a head, which are none of most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found(u8);

impl Found {
    pub(super) fn in_head(headers: &HeaderMap) -> Self {
        // To look at the names that are there costs less than to look for eight that may be.
        let may_be = |name: &&HeaderName| {
            let name = name.as_str().as_bytes();
            matches!(name, [b't', b'r', ..] | [b'b', b'3'] | [b'x', b'-', b'b', ..])
        };
        Self(headers.keys().filter(may_be).fold(0, |found, name| {
            let index = NAMES.iter().position(|known| known == name);
            found | index.map_or(0, |index| 1 << index)
        }))
    }

    /// Whether these are all.
    pub(super) fn are(self, names: &[HeaderName]) -> bool {
        self.names().eq(names)
    }

    fn is_none(self) -> bool {
        self.0 == 0
    }

    fn has(self, name: &HeaderName) -> bool {
        self.names().any(|found| found == name)
    }

    /// What [`only`] finds; what is not there is not looked for.
    fn once<'a>(self, headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
        if self.has(name) { only(headers, name) } else { None }
    }

    /// Whether one of the several headers of B3 is among them.
    fn has_several(self) -> bool {
        self.names().any(|name| SEVERAL.contains(name))
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static HeaderName> {
        let names = NAMES.iter().enumerate();
        names.filter(move |(index, _)| self.0 & 1 << index != 0).map(|(_, name)| name)
    }
}

/// In which headers a trace travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Formats {
    pub(super) w3c: bool,
    pub(super) b3: bool,
    pub(super) b3_several: bool,
}

impl Formats {
    pub(super) fn none(self) -> bool {
        self == Self::default()
    }
}

/// The caller's span, and what it has decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) ids: Option<(TraceId, SpanId)>,
    /// The caller's own parent, where the format says it.
    pub(super) grandparent: Option<SpanId>,
    pub(super) sampled: Option<bool>,
    pub(super) debug: bool,
    pub(super) random: bool,
    /// `tracestate`.
    pub(super) state: String,
    pub(super) formats: Formats,
    /// B3 writes the trace's name with 16 digits.
    pub(super) short: bool,
}

impl Incoming {
    /// Reads all formats. Where they disagree, W3C's is right, and then the single header of B3.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let found = Found::in_head(headers);
        if found.is_none() {
            return Self::default();
        }
        let w3c = found.once(headers, &TRACEPARENT).and_then(TraceParent::parse);
        let single = found.once(headers, &B3_SINGLE).and_then(B3::parse);
        let several = if found.has_several() { several(headers) } else { None };
        let several = several.and_then(|several| B3::parse_several(&several));
        let formats =
            Formats { w3c: w3c.is_some(), b3: single.is_some(), b3_several: several.is_some() };
        let Some(parent) = w3c else {
            let b3 = single.or(several).unwrap_or_default();
            return Self {
                ids: b3.ids,
                grandparent: b3.parent,
                sampled: b3.sampled,
                debug: b3.debug,
                short: b3.short,
                formats,
                ..Self::default()
            };
        };
        let values = || headers.get_all(&TRACESTATE).into_iter().map(HeaderValue::as_bytes);
        let state = if found.has(&TRACESTATE) { state::read(values()) } else { None };
        Self {
            ids: Some((parent.trace_id, parent.span_id)),
            sampled: Some(parent.sampled),
            random: parent.random,
            state: state.unwrap_or_default(),
            formats,
            ..Self::default()
        }
    }
}

/// The value of a header that there is once. Two callers cannot both be right.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values.next().is_none().then_some(value.as_bytes())
}

fn several(headers: &HeaderMap) -> Option<Several<'_>> {
    let mut values = [None; 5];
    for (value, name) in values.iter_mut().zip(&SEVERAL) {
        if headers.contains_key(name) {
            *value = Some(only(headers, name)?);
        }
    }
    let [trace_id, span_id, parent, sampled, flags] = values;
    Some(Several { trace_id, span_id, parent, sampled, flags })
}
