//! B3, Zipkin's headers: the single one and the several (github.com/openzipkin/b3-propagation).

use undermesh_telemetry::{SpanId, TraceId};

/// What B3 says about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct B3 {
    /// The trace, and the caller's span; a caller may decide about sampling alone.
    pub(crate) ids: Option<(TraceId, SpanId)>,
    /// The caller's own parent.
    pub(crate) parent: Option<SpanId>,
    /// Whether it is recorded; the caller may leave that open.
    pub(crate) sampled: Option<bool>,
    /// To be recorded, whatever anybody else thinks.
    pub(crate) debug: bool,
    /// The trace's name is written with 16 digits.
    pub(crate) short: bool,
}

/// The several headers, each as it came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Several<'a> {
    pub(crate) trace_id: Option<&'a [u8]>,
    pub(crate) span_id: Option<&'a [u8]>,
    pub(crate) parent: Option<&'a [u8]>,
    pub(crate) sampled: Option<&'a [u8]>,
    pub(crate) flags: Option<&'a [u8]>,
}

impl B3 {
    /// `{trace}-{span}[-{sampled}[-{parent}]]`, or `{sampled}` alone.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|byte| *byte == b'-');
        let first = parts.next()?;
        let Some(span_id) = parts.next() else {
            let (sampled, debug) = state(first)?;
            return Some(Self { sampled: Some(sampled), debug, ..Self::default() });
        };
        let (trace_id, short) = trace_id(first)?;
        let state = parts.next().map(|text| state(text).ok_or(())).transpose().ok()?;
        let parent = parts.next().map(|text| SpanId::from_hex(text).ok_or(())).transpose().ok()?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            ids: Some((trace_id, SpanId::from_hex(span_id)?)),
            parent,
            sampled: state.map(|(sampled, _)| sampled),
            debug: state.is_some_and(|(_, debug)| debug),
            short,
        })
    }

    /// `x-b3-*`. Older senders write `true` and `false`.
    pub(crate) fn parse_several(several: &Several<'_>) -> Option<Self> {
        let debug = match several.flags {
            None | Some(b"0") => false,
            Some(b"1") => true,
            Some(_) => return None,
        };
        let sampled = match several.sampled {
            None => None,
            Some(b"1" | b"true") => Some(true),
            Some(b"0" | b"false") => Some(false),
            Some(_) => return None,
        };
        let (ids, short) = match (several.trace_id, several.span_id) {
            (None, None) => (None, false),
            (Some(trace), Some(span)) => {
                let (trace_id, short) = trace_id(trace)?;
                (Some((trace_id, SpanId::from_hex(span)?)), short)
            }
            _ => return None,
        };
        let parent =
            several.parent.map(|text| SpanId::from_hex(text).ok_or(())).transpose().ok()?;
        if ids.is_none() && (parent.is_some() || sampled.is_none() && !debug) {
            return None;
        }
        Some(Self { ids, parent, sampled: if debug { Some(true) } else { sampled }, debug, short })
    }

    /// The trace's name as it is written.
    pub(crate) fn trace_text(trace_id: TraceId, short: bool) -> String {
        let text = trace_id.to_string();
        if short { text[16..].to_owned() } else { text }
    }
}

/// 32 digits, or 16, before which there are as many zeros; and whether it was 16.
fn trace_id(text: &[u8]) -> Option<(TraceId, bool)> {
    match text.len() {
        32 => TraceId::from_hex(text).map(|id| (id, false)),
        16 => {
            let half = SpanId::from_hex(text)?;
            let mut bytes = [0; 16];
            bytes[8..].copy_from_slice(half.bytes());
            TraceId::new(bytes).map(|id| (id, true))
        }
        _ => None,
    }
}

/// Sampled, and debug.
fn state(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";
    const PARENT: &str = "05e3ac9a4f6e3b90";

    #[test]
    fn the_single_header_is_read_in_all_its_forms() {
        for (text, ids, sampled, debug, parent) in [
            (format!("{TRACE}-{SPAN}-1-{PARENT}"), true, Some(true), false, true),
            (format!("{TRACE}-{SPAN}-d"), true, Some(true), true, false),
            (format!("{TRACE}-{SPAN}-0"), true, Some(false), false, false),
            (format!("{TRACE}-{SPAN}"), true, None, false, false),
            ("0".to_owned(), false, Some(false), false, false),
            ("d".to_owned(), false, Some(true), true, false),
        ] {
            let b3 = B3::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (b3.ids.is_some(), b3.sampled, b3.debug, b3.parent.is_some()),
                (ids, sampled, debug, parent),
                "{text}"
            );
        }
        let short = B3::parse(format!("{}-{SPAN}", &TRACE[16..]).as_bytes()).unwrap();
        let (trace_id, _) = short.ids.unwrap();
        assert_eq!(trace_id.to_string(), format!("{}{}", "0".repeat(16), &TRACE[16..]));
        assert_eq!(B3::trace_text(trace_id, short.short), TRACE[16..]);
    }

    #[test]
    fn malformed_single_headers_are_refused() {
        for bad in [
            String::new(),
            "-".to_owned(),
            "2".to_owned(),
            TRACE.to_owned(),
            format!("{TRACE}-"),
            format!("{TRACE}-{SPAN}-"),
            format!("{TRACE}-{SPAN}-true"),
            format!("{TRACE}-{SPAN}-{PARENT}"),
            format!("{TRACE}-{SPAN}-1-"),
            format!("{TRACE}-{SPAN}-1-{PARENT}-x"),
            format!("{}-{SPAN}", &TRACE[1..]),
            format!("{}-{SPAN}", TRACE.to_uppercase()),
            format!("{}-{SPAN}", "0".repeat(32)),
            format!("{TRACE}-{}", "0".repeat(16)),
        ] {
            assert_eq!(B3::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_several_headers_are_read_together() {
        let all = Several {
            trace_id: Some(TRACE.as_bytes()),
            span_id: Some(SPAN.as_bytes()),
            ..Several::default()
        };
        assert_eq!(B3::parse_several(&all).unwrap().sampled, None);
        let sampled = |text: &'static [u8]| {
            B3::parse_several(&Several { sampled: Some(text), ..all }).map(|b3| b3.sampled)
        };
        assert_eq!(sampled(b"true"), Some(Some(true)));
        assert_eq!(sampled(b"0"), Some(Some(false)));
        assert_eq!(sampled(b"yes"), None);
        let debug = Several { flags: Some(b"1"), sampled: Some(b"0"), ..all };
        let debug = B3::parse_several(&debug).unwrap();
        assert_eq!((debug.sampled, debug.debug), (Some(true), true));
        let only = Several { sampled: Some(b"0"), ..Several::default() };
        assert_eq!(B3::parse_several(&only).unwrap().sampled, Some(false));
        for bad in [
            Several::default(),
            Several { span_id: None, ..all },
            Several { trace_id: None, ..all },
            Several { flags: Some(b"2"), ..all },
            Several { parent: Some(b"x"), ..all },
            Several { parent: Some(PARENT.as_bytes()), ..Several::default() },
        ] {
            assert_eq!(B3::parse_several(&bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            value in proptest::collection::vec(any::<u8>(), 0..100),
            other in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        ) {
            let _ = B3::parse(&value);
            let other = other.as_deref();
            let several = Several { trace_id: Some(&value), span_id: other, parent: other, sampled: other, flags: other };
            let _ = B3::parse_several(&several);
        }

        #[test]
        fn both_forms_mean_the_same(trace in "[0-9a-f]{16}([0-9a-f]{16})?", span in "[0-9a-f]{16}", sampled in "[01]") {
            let single = B3::parse(format!("{trace}-{span}-{sampled}").as_bytes());
            let several = B3::parse_several(&Several {
                trace_id: Some(trace.as_bytes()),
                span_id: Some(span.as_bytes()),
                sampled: Some(sampled.as_bytes()),
                ..Several::default()
            });
            prop_assert_eq!(single, several);
        }
    }
}
