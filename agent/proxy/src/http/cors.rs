//! Step *cors*: which web pages may ask, told to browsers (Fetch, "CORS protocol").
//!
//! Source: Istio `CorsPolicy`; Envoy, `source/extensions/filters/http/cors/cors_filter.cc`; Gateway API
//! `HTTPCORSFilter`.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};
use undermesh_model::traffic::{Cors, TextPattern};

use super::{head::Head, local_reply::LocalReply, patterns};

/// What an answer to an allowed origin says.
#[derive(Debug)]
pub(crate) struct Allowed(Vec<(HeaderName, HeaderValue)>);

impl Allowed {
    /// Puts it into an answer; what the endpoint said about it is replaced.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        for (name, value) in self.0 {
            if name == VARY {
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
        }
    }
}

/// Why a preflight is answered here.
const PREFLIGHT: &str = "cors_preflight";

/// Looks at a request. `Err` is the answer to a preflight; `Ok` says what the answer of somebody else
/// has to say.
pub(crate) fn judge(rule: &Cors, head: &Head) -> Result<Option<Allowed>, LocalReply> {
    let Some(origin) = head.parts.headers.get(ORIGIN) else { return Ok(None) };
    let asks = head.parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let preflight = head.parts.method == Method::OPTIONS && asks;
    let allowed = is_allowed(rule, origin);
    match (preflight, allowed) {
        (true, true) => Err(preflight_answer(rule, origin)),
        (true, false) if !rule.forward_unmatched => Err(LocalReply::new(StatusCode::OK, PREFLIGHT)),
        (false, true) => Ok(Some(Allowed(allowances(rule, origin)))),
        (_, false) => Ok(None),
    }
}

fn is_allowed(rule: &Cors, origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    rule.origins.0.iter().any(|pattern| match pattern {
        TextPattern::Exact(text) => text == "*" || text == origin,
        TextPattern::Prefix(text) => origin.starts_with(text.as_str()),
        TextPattern::Regex(pattern) => patterns::matches_whole(pattern, origin),
        TextPattern::Present => true,
    })
}

fn preflight_answer(rule: &Cors, origin: &HeaderValue) -> LocalReply {
    let mut reply = LocalReply::new(StatusCode::OK, PREFLIGHT);
    let mut say = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text)
            && !value.is_empty()
        {
            reply.headers.insert(name, value);
        }
    };
    say(ACCESS_CONTROL_ALLOW_METHODS, rule.methods.join(","));
    say(ACCESS_CONTROL_ALLOW_HEADERS, rule.headers.join(","));
    if let Some(age) = rule.max_age {
        say(ACCESS_CONTROL_MAX_AGE, age.as_secs().to_string());
    }
    reply.headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if rule.credentials {
        let yes = HeaderValue::from_static("true");
        reply.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
    reply
}

fn allowances(rule: &Cors, origin: &HeaderValue) -> Vec<(HeaderName, HeaderValue)> {
    let mut all = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
    if rule.credentials {
        all.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
    }
    if let Ok(expose) = HeaderValue::try_from(rule.expose.join(","))
        && !expose.is_empty()
    {
        all.push((ACCESS_CONTROL_EXPOSE_HEADERS, expose));
    }
    // The answer is another one for other origins.
    all.push((VARY, HeaderValue::from_static("origin")));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use undermesh_model::traffic::AllowedOrigins;

    use super::*;

    fn rule() -> Cors {
        Cors {
            origins: AllowedOrigins(vec![
                TextPattern::Exact("https://shop.example".to_owned()),
                TextPattern::Regex(r"https://[a-z]+\.shop\.example".to_owned()),
            ]),
            methods: vec!["GET".to_owned(), "PUT".to_owned()],
            headers: vec!["x-a".to_owned()],
            expose: vec!["x-b".to_owned()],
            max_age: Some(Duration::from_secs(60)),
            credentials: true,
            forward_unmatched: true,
        }
    }

    fn request(method: Method, origin: &str, asked: Option<&str>) -> Head {
        let mut request = Request::builder().method(method).uri("/").header("host", "cart");
        request = request.header("origin", origin);
        if let Some(asked) = asked {
            request = request.header("access-control-request-method", asked);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        Head::new(parts, "10.96.0.1:80".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered_here() {
        let head = request(Method::OPTIONS, "https://shop.example", Some("PUT"));
        let reply = judge(&rule(), &head).unwrap_err();
        assert_eq!(reply.status, StatusCode::OK);
        let header = |name: &str| reply.headers[name].to_str().unwrap();
        assert_eq!(header("access-control-allow-origin"), "https://shop.example");
        assert_eq!(header("access-control-allow-methods"), "GET,PUT");
        assert_eq!(header("access-control-allow-headers"), "x-a");
        assert_eq!(header("access-control-max-age"), "60");
        assert_eq!(header("access-control-allow-credentials"), "true");
    }

    #[test]
    fn other_origins_get_no_permission() {
        let head = request(Method::OPTIONS, "https://evil.example", Some("PUT"));
        assert!(judge(&rule(), &head).unwrap().is_none());
        let strict = Cors { forward_unmatched: false, ..rule() };
        assert!(judge(&strict, &head).unwrap_err().headers.is_empty());
        let head = request(Method::GET, "https://a.shop.example.evil", None);
        assert!(judge(&strict, &head).unwrap().is_none());
    }

    #[test]
    fn answers_to_allowed_origins_say_so() {
        let head = request(Method::GET, "https://a.shop.example", None);
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        judge(&rule(), &head).unwrap().unwrap().apply(&mut headers);
        assert_eq!(headers["access-control-allow-origin"], "https://a.shop.example");
        assert_eq!(headers["access-control-expose-headers"], "x-b");
    }
}
