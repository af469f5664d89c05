//! The headers of traces: what is passed on is well formed, and says what was understood.

use http::{HeaderMap, HeaderName, HeaderValue};
use undermesh_proxy::fuzzing::trace::pass;

use crate::source::{Source, spell};

/// Pieces of the headers.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"00-",
    b"cc-",
    b"ff-",
    b"4bf92f3577b34da6a3ce929d0e0e4736",
    b"00f067aa0ba902b7",
    b"00000000000000000000000000000000",
    b"0000000000000000",
    b"-",
    b"01",
    b"00",
    b"1",
    b"0",
    b"d",
    b"true",
    b",",
    b"=",
    b" ",
    b"\t",
    b"a=1",
    b"vendor@x=y",
    b"A",
    b"g",
    &[b'v'; 100],
    &[b'w'; 300],
];

const NAMES: [&str; 8] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let all = source.flag();
    let mut headers = HeaderMap::new();
    while !source.is_empty() && headers.len() < 20 {
        let name = HeaderName::from_static(source.pick(&NAMES));
        let value = Source::new(source.raw(64)).spelled(DICTIONARY);
        headers.extend(HeaderValue::from_bytes(&value).ok().map(|value| (name, value)));
    }
    let parents: Vec<_> = headers.get_all("traceparent").iter().cloned().collect();
    let placed = pass(&mut headers, all).expect("a share");
    if let [parent] = &parents[..]
        && let Some(trace_id) = naive(parent.as_bytes())
    {
        assert_eq!(placed.trace_id, trace_id, "{parent:?}");
    }
    let passed: Vec<_> = headers.get_all("traceparent").iter().collect();
    assert!(passed.len() <= 1, "{passed:?}");
    for parent in passed {
        assert_eq!(parent.len(), 55, "{parent:?}");
        assert_eq!(naive(parent.as_bytes()), Some(placed.trace_id.clone()), "{parent:?}");
    }
    let state: Vec<_> = headers.get_all("tracestate").iter().collect();
    assert!(state.len() <= 1 && state.iter().all(|state| state.len() <= 512), "{state:?}");
    // The next one understands the same, whatever it would have decided itself.
    for all in [false, true] {
        let again = pass(&mut headers.clone(), all).expect("a share");
        assert_eq!(again.trace_id, placed.trace_id, "{headers:?}");
        assert_eq!(again.recorded, placed.recorded, "{headers:?}");
        assert!(again.recorded || again.span_id == placed.span_id, "{headers:?}");
    }
}

/// The trace of a `traceparent` as the recommendation has it.
fn naive(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?;
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace_id, span_id, flags, rest @ ..] = &parts[..] else { return None };
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
    };
    let is_some = |text: &str| text.bytes().any(|byte| byte != b'0');
    let good = is_hex(version, 2)
        && *version != "ff"
        && (*version != "00" || rest.is_empty())
        && is_hex(trace_id, 32)
        && is_some(trace_id)
        && is_hex(span_id, 16)
        && is_some(span_id)
        && is_hex(flags, 2);
    good.then(|| (*trace_id).to_owned())
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    const LONG: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SHORT: &str = "00f067aa0ba902b7";
    let parent = format!("00-{LONG}-{SHORT}-01");
    let later = format!("cc-{LONG}-{SHORT}-00-x");
    let single = format!("{LONG}-{SHORT}-1-{SHORT}");
    let short = format!("{SHORT}-{SHORT}-d");
    let long_state = format!("a=1,b={},c={}", "v".repeat(100), "w".repeat(300));
    let requests: [&[(u8, &str)]; 8] = [
        &[(0, &parent), (1, "a=1, vendor@x=y")],
        &[(0, &later), (1, &long_state)],
        &[(0, &parent), (0, &parent)],
        &[(2, &single)],
        &[(2, &short), (0, &parent)],
        &[(2, "0")],
        &[(3, LONG), (4, SHORT), (5, SHORT), (6, "1")],
        &[(3, SHORT), (4, SHORT), (7, "1")],
    ];
    let mut seeds = Vec::new();
    for (request, all) in requests.iter().zip([0, 1].into_iter().cycle()) {
        let mut seed = vec![all];
        for (name, value) in *request {
            let spelled = spell(value.as_bytes(), DICTIONARY);
            let length = u8::try_from(spelled.len()).unwrap_or_default().min(64);
            seed.extend([*name, length]);
            seed.extend_from_slice(&spelled[..usize::from(length)]);
        }
        seeds.push(seed);
    }
    seeds
}
