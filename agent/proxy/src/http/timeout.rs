//! How long a request may take: as its route says, or as the client asks.
//!
//! Source: Envoy, `x-envoy-upstream-rq-timeout-ms` and `max_grpc_timeout`, which Istio sets to the route's
//! time limit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Milliseconds, for all attempts together; 0 for no limit.
const ASKED: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Most digits that gRPC allows.
const MAX_DIGITS: usize = 8;

/// The time limit of a request whose route has `limit`. A limit that the client asks for goes before all
/// others, and is no header of the endpoint's; what a gRPC client asks for may only be less than the
/// route's.
pub(crate) fn of(limit: Option<Duration>, grpc: bool, headers: &mut HeaderMap) -> Option<Duration> {
    let is_limit = |time: &Duration| !time.is_zero();
    let asked = headers.remove(ASKED).as_ref().and_then(millis);
    let own = limit.filter(is_limit);
    match asked {
        Some(asked) => Some(asked).filter(is_limit),
        None if grpc => {
            let asked = headers.get(GRPC_TIMEOUT).and_then(grpc_timeout).filter(is_limit);
            own.into_iter().chain(asked).min()
        }
        None => own,
    }
}

fn millis(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// `TimeoutValue TimeoutUnit` (gRPC over HTTP/2).
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Option<Duration> = Some(Duration::from_secs(2));

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn what_the_client_asks_for_goes_before_the_route_and_not_to_the_endpoint() {
        let mut headers = with(ASKED, "5000");
        assert_eq!(of(ROUTE, false, &mut headers), Some(Duration::from_secs(5)));
        assert!(headers.is_empty());
        assert_eq!(of(ROUTE, true, &mut with(ASKED, "0")), None);
        assert_eq!(of(ROUTE, false, &mut with(ASKED, "soon")), ROUTE);
    }

    #[test]
    fn grpc_clients_may_ask_for_less_than_the_route_allows() {
        let asked = |value| of(ROUTE, true, &mut with(GRPC_TIMEOUT, value));
        assert_eq!(asked("100m"), Some(Duration::from_millis(100)));
        assert_eq!(asked("1H"), ROUTE);
        assert_eq!(asked("0S"), ROUTE);
        assert_eq!(of(None, true, &mut with(GRPC_TIMEOUT, "3M")), Some(Duration::from_secs(180)));
        assert_eq!(of(None, false, &mut with(GRPC_TIMEOUT, "3M")), None);
        assert_eq!(of(Some(Duration::ZERO), false, &mut HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_timeout_of_grpc_is_none() {
        for value in ["", "1", "S", "-1S", "123456789S", "1x", "1 S", "\u{e9}"] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            assert_eq!(grpc_timeout(&value), None, "{value:?}");
        }
        let units = ["2H", "2M", "2S", "2m", "2u", "2n"];
        let read = units.map(|text| grpc_timeout(&HeaderValue::from_static(text)).unwrap());
        assert!(read.windows(2).all(|pair| pair[0] > pair[1]), "{read:?}");
    }
}
