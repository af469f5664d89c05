//! The trace that a request says it is part of, so that its line in the access log can be found from there.
//!
//! Pure and total: a client chooses the bytes. Source: W3C Trace Context, `traceparent`; B3 Propagation.

use http::HeaderMap;

/// The trace's number in hexadecimal digits.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let part = |text: &'_ str, at: usize| text.split('-').nth(at).map(str::to_owned);
    let w3c = text("traceparent").and_then(|value| part(value, 1));
    let of_b3 = || text("b3").and_then(|value| part(value, 0));
    let many_b3 = || text("x-b3-traceid").map(str::to_owned);
    let id = w3c.filter(|id| is_id(id) && id.len() == 32).or_else(of_b3).or_else(many_b3)?;
    is_id(&id).then_some(id)
}

fn is_id(id: &str) -> bool {
    let digits = id.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(id.len(), 16 | 32) && digits && id.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_known_by_what_any_propagation_calls_it() {
        const LONG: &str = "0af7651916cd43dd8448eb211c80319c";
        const SHORT: &str = "b7ad6b7169203331";
        let w3c = format!("00-{LONG}-{SHORT}-01");
        for (name, value, expected) in [
            ("traceparent", w3c.as_str(), Some(LONG)),
            ("traceparent", "00-0-0-01", None),
            ("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
            ("traceparent", "00-b7ad6b7169203331-b7ad6b7169203331-01", None),
            ("b3", &format!("{LONG}-{SHORT}-1"), Some(LONG)),
            ("b3", &format!("{SHORT}-{SHORT}"), Some(SHORT)),
            ("b3", "0", None),
            ("x-b3-traceid", SHORT, Some(SHORT)),
            ("x-b3-traceid", "0af7651916cd43dd8448eb211c80319g", None),
            ("other", LONG, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                http::HeaderName::try_from(name).unwrap(),
                http::HeaderValue::try_from(value).unwrap(),
            );
            assert_eq!(trace_id(&headers).as_deref(), expected, "{name}: {value}");
        }
    }
}
