//! Providers in, authorizers and findings out.

use std::time::Duration;

use undermesh_model::{Authorizer, AuthorizerProtocol, CheckedBody, TextMatch};

use super::{KNOWN, Spec};
use crate::{definitions::fields_are, fixtures::load};

/// The authorizers (none where there are errors), and the findings without place and object.
fn read(providers: &str) -> (Vec<Authorizer>, Vec<String>) {
    let loaded = load(&format!(
        "apiVersion: undermesh.io/v1alpha1\nkind: MeshConfig\n\
         metadata: {{name: default, namespace: istio-system}}\n\
         spec:\n  extensionProviders:\n{providers}"
    ));
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{}: {}", one.code, one.message)).collect();
    let configs = loaded.cluster.unwrap_or_default().mesh_configs.into_values();
    (configs.flat_map(|config| config.authorizers).collect(), said)
}

#[test]
fn a_provider_that_speaks_http_is_read_field_by_field() {
    let (found, said) = read(
        "
  - name: login
    envoyExtAuthzHttp:
      service: auth/Login.auth.svc.cluster.local
      port: '4180'
      timeout: 1500ms
      pathPrefix: /check
      failOpen: true
      statusOnError: '503'
      includeRequestHeadersInCheck: [Cookie, x-a-*]
      includeAdditionalHeadersInCheck: {X-From: mesh}
      includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true}
      headersToUpstreamOnAllow: ['*-user']
      headersToDownstreamOnDeny: [set-cookie]
      headersToDownstreamOnAllow: ['*']
",
    );
    assert_eq!(said, Vec::<String>::new());
    let [login] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((login.namespace.as_deref(), login.port), (Some("auth"), 4180));
    assert_eq!(login.host, "login.auth.svc.cluster.local");
    assert_eq!(login.timeout, Duration::from_millis(1500));
    assert_eq!((login.fail_open, login.status_on_error), (true, 503));
    assert_eq!(login.body, Some(CheckedBody { max_bytes: 1000, partial: true, raw: false }));
    let AuthorizerProtocol::Http(http) = &login.protocol else { panic!("{login:?}") };
    assert_eq!(http.path_prefix, "/check");
    let exact = TextMatch::Exact("cookie".to_owned());
    assert_eq!(http.request_headers, [exact, TextMatch::Prefix("x-a-".to_owned())]);
    assert_eq!(http.additional_headers, [("x-from".to_owned(), "mesh".to_owned())]);
    assert_eq!(http.upstream_on_allow, [TextMatch::Suffix("-user".to_owned())]);
    assert_eq!(http.downstream_on_deny, [TextMatch::Exact("set-cookie".to_owned())]);
    assert_eq!(http.downstream_on_allow, [TextMatch::Present]);
}

#[test]
fn a_provider_that_speaks_grpc_is_read_with_istios_defaults() {
    let (found, said) = read(
        "
  - name: opa
    envoyExtAuthzGrpc:
      service: opa.auth.svc.cluster.local
      port: 9191
      includeRequestBodyInCheck: {maxRequestBytes: 10, packAsBytes: true}
",
    );
    assert_eq!(said, Vec::<String>::new());
    let [opa] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(opa.protocol, AuthorizerProtocol::Grpc);
    assert_eq!((opa.timeout, opa.namespace.clone()), (Duration::from_secs(600), None));
    assert_eq!((opa.fail_open, opa.status_on_error), (false, 403));
    assert_eq!(opa.body, Some(CheckedBody { max_bytes: 10, partial: false, raw: true }));
}

#[test]
fn the_former_name_of_a_field_counts_where_the_new_one_is_not_there() {
    let (found, said) = read(
        "
  - name: a
    envoyExtAuthzHttp: {service: a.b, port: 1, includeHeadersInCheck: [X-A]}
",
    );
    assert_eq!(said, Vec::<String>::new());
    let AuthorizerProtocol::Http(http) = &found[0].protocol else { panic!("{found:?}") };
    assert_eq!(http.request_headers, [TextMatch::Exact("x-a".to_owned())]);
}

#[test]
fn what_has_no_effect_is_told() {
    for (field, code) in [
        ("clearRouteCache: true", "no-effect"),
        ("includeAdditionalHeadersInCheck: {x-a: '%REQ(:path)%'}", "not-enforced"),
        ("includeRequestBodyInCheck: {maxRequestBytes: 1, packAsBytes: true}", "no-effect"),
        ("includeRequestBodyInCheck: {maxRequestBytes: 10000000}", "not-enforced"),
        ("retryPolicy: {}", "unknown-field"),
    ] {
        let provider = format!(
            "  - name: a\n    envoyExtAuthzHttp:\n      service: a.b\n      port: 1\n      {field}\n"
        );
        let (found, said) = read(&provider);
        assert_eq!((found.len(), said.len()), (1, 1), "{field}: {said:?}");
        assert!(said[0].starts_with(code), "{field}: {said:?}");
        let kept = found[0].body.map_or(0, |body| body.max_bytes);
        assert!(kept <= 4 << 20, "{field}: {kept} bytes are kept");
    }
    let (found, said) = read("  - {name: zipkin, zipkin: {service: a.b, port: 1}}\n");
    assert!(found.is_empty() && said[0].starts_with("unknown-field"), "{said:?}");
}

#[test]
fn mistakes_are_refused() {
    let one = |fields: &str| format!("  - {{name: a, envoyExtAuthzHttp: {{{fields}}}}}\n");
    for provider in [
        one("port: 1"),
        one("service: a/, port: 1"),
        one("service: '*.b', port: 1"),
        one("service: a.b"),
        one("service: a.b, port: 70000"),
        one("service: a.b, port: x"),
        one("service: a.b, port: 1, timeout: soon"),
        one("service: a.b, port: 1, timeout: 0s"),
        one("service: a.b, port: 1, pathPrefix: check"),
        one("service: a.b, port: 1, statusOnError: '99'"),
        one("service: a.b, port: 1, statusOnError: never"),
        one("service: a.b, port: 1, includeAdditionalHeadersInCheck: {'a b': c}"),
        one("service: a.b, port: 1, includeRequestBodyInCheck: {}"),
        "  - {envoyExtAuthzGrpc: {service: a.b, port: 1}}\n".to_owned(),
        "  - {name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}, \
         envoyExtAuthzHttp: {service: a.b, port: 1}}\n"
            .to_owned(),
        "  - {name: a, envoyExtAuthzGrpc: {service: a.b, port: 1}}\n".repeat(2),
    ] {
        let (found, said) = read(&provider);
        let refused = said.iter().any(|said| said.starts_with("invalid-policy"));
        assert!(found.is_empty() && refused, "{provider}: {said:?}");
    }
}

#[test]
fn the_definition_has_the_fields_that_are_read() {
    fields_are::<Spec>(&KNOWN, &[]);
}
