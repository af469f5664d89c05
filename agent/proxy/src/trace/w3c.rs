//! `traceparent`, as W3C Trace Context has it (Recommendation, section 3.2, and level 2 for the second flag).

use undermesh_telemetry::{SpanId, TraceId};

/// Length of version 00, and least length of all others.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
const RANDOM: u8 = 0x02;

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    /// It may have been recorded.
    pub(crate) sampled: bool,
    /// The last seven bytes of the trace's name are random.
    pub(crate) random: bool,
}

impl TraceParent {
    /// Reads version 00, and of later versions what they have in common with it.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let version = byte(value.get(..2)?)?;
        let is_long = value.len() > LENGTH;
        // Later versions may add fields; nothing else may follow.
        if version == 0xff
            || value.len() < LENGTH
            || is_long && (version == 0 || value[LENGTH] != b'-')
        {
            return None;
        }
        if [2, 35, 52].iter().any(|dash| value[*dash] != b'-') {
            return None;
        }
        let flags = byte(&value[53..LENGTH])?;
        Some(Self {
            trace_id: TraceId::from_hex(&value[3..35])?,
            span_id: SpanId::from_hex(&value[36..52])?,
            sampled: flags & SAMPLED != 0,
            random: flags & RANDOM != 0,
        })
    }

    /// As version 00.
    pub(crate) fn format(&self) -> [u8; LENGTH] {
        let flags = if self.sampled { SAMPLED } else { 0 } | if self.random { RANDOM } else { 0 };
        let mut text = *b"00-________________________________-________________-00";
        text[3..35].copy_from_slice(&self.trace_id.digits());
        text[36..52].copy_from_slice(&self.span_id.digits());
        text[LENGTH - 1] += flags;
        text
    }
}

/// Two lower-case hexadecimal digits.
fn byte(text: &[u8]) -> Option<u8> {
    let is_lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let text = str::from_utf8(text).ok().filter(|text| text.as_bytes().iter().all(is_lower))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_recommendation_shows_is_read() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!((parent.sampled, parent.random), (true, false));
        assert_eq!(parent.format(), GOOD.as_bytes());
        for (ending, sampled, random) in
            [("00", false, false), ("02", false, true), ("ff", true, true)]
        {
            let parent = TraceParent::parse(format!("{}{ending}", &GOOD[..53]).as_bytes()).unwrap();
            assert_eq!((parent.sampled, parent.random), (sampled, random), "{ending}");
        }
    }

    #[test]
    fn later_versions_may_be_longer_and_are_passed_on_as_the_first() {
        for ending in ["", "-", "-what-ever"] {
            let text = format!("cc{}{ending}", &GOOD[2..]);
            assert_eq!(
                TraceParent::parse(text.as_bytes()).unwrap().format(),
                GOOD.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_malformed() {
        let with = |at: usize, new: &str| {
            let mut text = GOOD.to_owned();
            text.replace_range(at..at + new.len(), new);
            text
        };
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            format!(" {GOOD}"),
            format!("cc{}x", &GOOD[2..]),
            with(0, "ff"),
            with(0, "0A"),
            with(0, "+1"),
            with(2, "_"),
            with(35, "."),
            with(52, "0"),
            with(3, "4BF9"),
            with(3, "gggg"),
            with(3, "00000000000000000000000000000000"),
            with(36, "0000000000000000"),
            with(53, "0A"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_what_is_read_is_written_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Some(parent) = TraceParent::parse(&bytes) {
                prop_assert_eq!(TraceParent::parse(&parent.format()), Some(parent));
            }
        }

        #[test]
        fn what_is_written_is_read(trace: [u8; 16], span: [u8; 8], sampled: bool, random: bool) {
            let (Some(trace_id), Some(span_id)) = (TraceId::new(trace), SpanId::new(span)) else {
                return Ok(());
            };
            let parent = TraceParent { trace_id, span_id, sampled, random };
            prop_assert_eq!(TraceParent::parse(&parent.format()), Some(parent));
        }

        #[test]
        fn one_changed_byte_is_read_as_something_or_refused(at in 0usize..55, new: u8) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = new;
            if let Some(parent) = TraceParent::parse(&bytes) {
                prop_assert_eq!(parent.format().len(), LENGTH);
            }
        }
    }
}
