//! By which names a server without authentication may be asked, and what browsers are told about its answers.
//!
//! It listens at loopback, and any web page that somebody has open can have their browser ask there. Three things keep
//! it from learning anything: a name that somebody has pointed at loopback (DNS rebinding) is refused; other
//! sites can neither embed nor read an answer; and what changes something is not done for them.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    http::uri::Authority,
};

use crate::admin::Answer;

/// Scripts and styles of this server alone, none within a page, and no text that becomes one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Who may be meant.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    address: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// Loopback's names, the address that is listened at, and `names`.
    pub(crate) fn new(address: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { address: address.ip(), names }
    }

    /// Why a request is not answered, where it is not.
    pub(crate) fn refuse<B>(&self, request: &Request<B>) -> Option<Answer> {
        let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
        let asked = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => header(HOST),
        };
        let Some(asked) = asked.and_then(|asked| asked.parse::<Authority>().ok()) else {
            return Some(forbidden("a request has to say which host it is for"));
        };
        if !self.is_known(asked.host()) {
            return Some(forbidden(
                "this host is not served under that name; ask for 127.0.0.1 or localhost",
            ));
        }
        let from = header(ORIGIN).map(|origin| origin.parse::<Uri>().ok());
        let is_own = |origin: Option<Uri>| {
            origin.is_some_and(|it| it.authority().is_some_and(|it| *it == asked))
        };
        let site = header(SITE).unwrap_or("none");
        let foreign = !matches!(site, "none" | "same-origin");
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // Other sites may have links to pages; what a link brings back is shown to a person, and not to them.
        if from.is_some_and(|origin| !is_own(origin)) || foreign && !reads {
            return Some(forbidden("another site asks"));
        }
        None
    }

    fn is_known(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => {
                address.is_loopback() || address == self.address || self.names.contains(&host)
            }
            Err(_) => host == "localhost" || self.names.contains(&host),
        }
    }
}

/// Where a browser says that a request comes from.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What browsers have to know of an answer.
pub(crate) fn guard(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn forbidden(why: &str) -> Answer {
    Answer::text(StatusCode::FORBIDDEN, format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: Method, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri("/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = Hosts::new("127.0.0.1:15000".parse().unwrap(), &["Mesh.example".to_owned()]);
        hosts.refuse(&request.body(()).unwrap()).is_none()
    }

    #[test]
    fn only_names_of_loopback_and_configured_ones_are_answered() {
        for host in [
            "127.0.0.1:15000",
            "127.0.0.1",
            "localhost:8080",
            "LocalHost",
            "[::1]:15000",
            "127.8.9.1",
            "mesh.example:1",
        ] {
            assert!(answered(Method::GET, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example:15000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1:15000",
            "[::2]",
            "mesh.example.evil",
            "",
            "a b",
        ] {
            assert!(!answered(Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!answered(Method::GET, &[]));
    }

    #[test]
    fn the_address_that_is_listened_at_is_a_name_too() {
        let hosts = Hosts::new("10.1.2.3:15018".parse().unwrap(), &[]);
        assert!(hosts.is_known("10.1.2.3") && !hosts.is_known("10.1.2.4"));
        let any = Hosts::new("[::]:15018".parse().unwrap(), &[]);
        assert!(any.is_known("localhost") && !any.is_known("10.1.2.3"));
    }

    #[test]
    fn a_host_in_the_request_line_counts_like_the_header() {
        let hosts = Hosts::new("127.0.0.1:15000".parse().unwrap(), &[]);
        let request =
            |uri| Request::builder().uri(uri).header("host", "localhost").body(()).unwrap();
        assert!(hosts.refuse(&request("http://evil.example/status")).is_some());
        assert!(hosts.refuse(&request("http://localhost/status")).is_none());
    }

    #[test]
    fn other_sites_change_nothing() {
        let host = ("host", "localhost:15000");
        let site = |it| ("sec-fetch-site", it);
        assert!(answered(Method::POST, &[host]));
        assert!(answered(Method::POST, &[host, site("same-origin")]));
        assert!(answered(Method::POST, &[host, ("origin", "http://localhost:15000")]));
        assert!(answered(Method::GET, &[host, site("cross-site")]));
        for header in [
            site("cross-site"),
            site("same-site"),
            ("origin", "http://evil.example"),
            ("origin", "http://localhost:1"),
            ("origin", "null"),
        ] {
            assert!(!answered(Method::POST, &[host, header]), "{header:?}");
        }
        assert!(!answered(Method::GET, &[host, ("origin", "http://evil.example")]));
    }

    #[test]
    fn answers_forbid_scripts_within_pages_and_of_others() {
        let mut headers = HeaderMap::new();
        guard(&mut headers);
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[REFERRER_POLICY], "no-referrer");
    }
}
