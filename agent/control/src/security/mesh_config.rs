//! MeshConfig: whom policies with action CUSTOM may ask. An object of this mesh, whose fields are those of
//! Istio's configuration file of this name.
//!
//! Source: Istio, `pkg/config/validation/extensionprovider.go`, for what is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use http::{HeaderName, HeaderValue, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use undermesh_model::{
    self as model, Authorizer, AuthorizerProtocol, CheckedBody, HttpAuthorizer, NamespacedName,
    TextMatch,
};

use super::invalid;
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
    traffic::duration,
};

/// The version that is read.
pub(crate) const MESH_CONFIG_VERSIONS: [&str; 1] = ["undermesh.io/v1alpha1"];
/// Istio's default.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Most of a body that is kept for an authorizer, whatever is asked for.
const MAX_BODY: u32 = 4 << 20;

const HTTP: [&str; 14] = [
    "service",
    "port",
    "timeout",
    "pathPrefix",
    "failOpen",
    "statusOnError",
    "clearRouteCache",
    "includeHeadersInCheck",
    "includeRequestHeadersInCheck",
    "includeAdditionalHeadersInCheck",
    "includeRequestBodyInCheck",
    "headersToUpstreamOnAllow",
    "headersToDownstreamOnDeny",
    "headersToDownstreamOnAllow",
];
const GRPC: [&str; 7] = [
    "service",
    "port",
    "timeout",
    "failOpen",
    "statusOnError",
    "clearRouteCache",
    "includeRequestBodyInCheck",
];
const BODY: [&str; 3] = ["maxRequestBytes", "allowPartialMessage", "packAsBytes"];

const KNOWN: [fields::Known; 7] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["extensionProviders"]),
    ("spec.extensionProviders.[]", &["name", "envoyExtAuthzHttp", "envoyExtAuthzGrpc"]),
    ("spec.extensionProviders.[].envoyExtAuthzHttp", &HTTP),
    ("spec.extensionProviders.[].envoyExtAuthzHttp.includeRequestBodyInCheck", &BODY),
    ("spec.extensionProviders.[].envoyExtAuthzGrpc", &GRPC),
    ("spec.extensionProviders.[].envoyExtAuthzGrpc.includeRequestBodyInCheck", &BODY),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MeshConfig {
    #[serde(default)]
    spec: Spec,
}

/// What is written of it; the definition in API servers is made of this.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    /// Those who may be asked. AuthorizationPolicies with action `CUSTOM` name one of them.
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    extension_providers: Vec<Provider>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [{
        "rule": "has(self.envoyExtAuthzHttp) != has(self.envoyExtAuthzGrpc)",
        "message": "a provider is one of envoyExtAuthzHttp and envoyExtAuthzGrpc"
    }]
))]
struct Provider {
    /// As policies write it.
    #[schemars(length(min = 1, max = 253))]
    name: String,
    /// Asked with a request of the same method, host and path: 200 lets it pass.
    envoy_ext_authz_http: Option<Shape>,
    /// Asked by `envoy.service.auth.v3.Authorization/Check`.
    #[schemars(schema_with = "grpc")]
    envoy_ext_authz_grpc: Option<Shape>,
}

/// Both kinds; that of gRPC has fewer fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["service", "port"]))]
struct Shape {
    /// A Service or ServiceEntry by its full name: `host` or `namespace/host`.
    #[schemars(
        length(max = 320),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^([^/*]+/)?[^/*]+$')",
            "message": "write host or namespace/host, without asterisks"
        }])
    )]
    service: String,
    /// From 1 to 65535, as a number or as text.
    #[schemars(schema_with = "port")]
    port: Port,
    /// For the whole question, for example `2s`; 600 s by default.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms|us|ns))+$') && self.matches('[1-9]')",
            "message": "write a time above zero, for example 2s"
        }])
    )]
    timeout: Option<String>,
    /// Stands before the path of what is asked.
    #[schemars(
        length(max = 1024),
        extend("x-kubernetes-validations" = [{
            "rule": "self == '' || self.startsWith('/')",
            "message": "a path begins with a slash"
        }])
    )]
    path_prefix: String,
    /// Without an answer, the request passes.
    fail_open: bool,
    /// The status of a request that is refused for want of an answer; 403 by default.
    #[schemars(
        length(max = 3),
        extend("x-kubernetes-validations" = [{
            "rule": "self == '' || self.matches('^[2-5][0-9][0-9]$')",
            "message": "write the status of an answer, for example \"503\""
        }])
    )]
    status_on_error: String,
    /// Has no effect: routes are chosen at the client's node.
    clear_route_cache: bool,
    /// The former name of `includeRequestHeadersInCheck`, which counts where both are there.
    include_headers_in_check: Vec<String>,
    /// Headers of the request that are shown: exact, `prefix*`, `*suffix`, or `*` for all.
    include_request_headers_in_check: Vec<String>,
    /// Headers that are sent along, by name.
    include_additional_headers_in_check: BTreeMap<String, String>,
    /// How much of the request's body is shown; nothing of it by default.
    include_request_body_in_check: Option<Body>,
    /// Headers of an answer that lets pass which the application gets.
    headers_to_upstream_on_allow: Vec<String>,
    /// Headers of an answer that refuses which the client gets; all by default.
    headers_to_downstream_on_deny: Vec<String>,
    /// Headers of an answer that lets pass which the client gets.
    headers_to_downstream_on_allow: Vec<String>,
}

/// What gRPC has of it.
fn grpc(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Shape>();
    let properties = schema.get_mut("properties").and_then(|it| it.as_object_mut());
    if let Some(properties) = properties {
        properties.retain(|name, _| GRPC.contains(&name.as_str()));
    }
    schema
}

/// No rule: of text of any length, its price would be estimated too high.
fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 65535,
        "pattern": "^[1-9][0-9]{0,4}$"
    })
}

/// A number that users write as text as well, as protobuf allows.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u32),
    Text(String),
}

impl Default for Port {
    fn default() -> Self {
        Self::Number(0)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["maxRequestBytes"]))]
struct Body {
    /// As many bytes; more than 4 MiB are never kept.
    #[schemars(range(min = 1))]
    max_request_bytes: u32,
    /// What is longer is shown in part; else the request is answered with 413.
    allow_partial_message: bool,
    /// gRPC: as bytes, not as text.
    pack_as_bytes: bool,
}

/// Reads a MeshConfig.
pub(crate) fn mesh_config(
    object: &MeshConfig,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<model::MeshConfig> {
    fields::check(&KNOWN, subject, report);
    let mut names = BTreeSet::new();
    let mut authorizers = Vec::new();
    for (index, provider) in object.spec.extension_providers.iter().enumerate() {
        let mut reader = Reader { index: index.to_string(), kind: "", subject, report };
        if provider.name.is_empty() || !names.insert(&provider.name) {
            let message = format!("provider {index} has no name, or that of another one");
            reader.invalid("name", message, "give every provider a name of its own");
        }
        authorizers.extend(reader.provider(provider));
    }
    let read = model::MeshConfig {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        authorizers,
    };
    Placed::new(read, subject)
}

/// Reads one provider.
struct Reader<'a> {
    index: String,
    kind: &'static str,
    subject: &'a Subject<'a>,
    report: &'a mut Report,
}

impl Reader<'_> {
    /// Nothing where it is no authorizer; what it is instead was reported as an unknown field.
    fn provider(mut self, provider: &Provider) -> Option<Authorizer> {
        let (kind, shape) = match (&provider.envoy_ext_authz_http, &provider.envoy_ext_authz_grpc) {
            (Some(shape), None) => ("envoyExtAuthzHttp", shape),
            (None, Some(shape)) => ("envoyExtAuthzGrpc", shape),
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let message = format!("provider {:?} is two at once", provider.name);
                self.invalid("name", message, "write one of the two");
                return None;
            }
        };
        self.kind = kind;
        if shape.clear_route_cache {
            let message = "clearRouteCache has no effect: routes are chosen at the client's node";
            self.warning("clearRouteCache", "no-effect", message.to_owned(), "leave it out");
        }
        let (namespace, host) = self.service(&shape.service);
        let grpc = kind == "envoyExtAuthzGrpc";
        Some(Authorizer {
            name: provider.name.clone(),
            namespace,
            host,
            port: self.port(&shape.port),
            timeout: self.timeout(shape.timeout.as_deref()),
            fail_open: shape.fail_open,
            status_on_error: self.status(&shape.status_on_error),
            body: shape.include_request_body_in_check.map(|body| self.body(body, grpc)),
            protocol: if grpc {
                AuthorizerProtocol::Grpc
            } else {
                AuthorizerProtocol::Http(self.http(shape))
            },
        })
    }

    fn http(&mut self, shape: &Shape) -> HttpAuthorizer {
        let prefix = &shape.path_prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.parse::<http::Uri>().is_err())
        {
            let message = format!("pathPrefix {prefix:?} is no path");
            self.invalid("pathPrefix", message, "begin with a slash");
        }
        // The first is the former name of the second, which counts.
        let shown = if shape.include_request_headers_in_check.is_empty() {
            &shape.include_headers_in_check
        } else {
            &shape.include_request_headers_in_check
        };
        HttpAuthorizer {
            path_prefix: prefix.clone(),
            request_headers: patterns(shown),
            additional_headers: self.additional(&shape.include_additional_headers_in_check),
            upstream_on_allow: patterns(&shape.headers_to_upstream_on_allow),
            downstream_on_deny: patterns(&shape.headers_to_downstream_on_deny),
            downstream_on_allow: patterns(&shape.headers_to_downstream_on_allow),
        }
    }

    fn additional(&mut self, headers: &BTreeMap<String, String>) -> Vec<(String, String)> {
        const FIELD: &str = "includeAdditionalHeadersInCheck";
        for (name, value) in headers {
            let name_is_good = HeaderName::try_from(name).is_ok();
            if !name_is_good || HeaderValue::try_from(value).is_err() {
                let message = format!("{name:?}: {value:?} is no header");
                self.invalid(FIELD, message, "correct it");
            } else if value.contains('%') {
                let message = format!("the value of {name:?} is sent as it is written");
                self.warning(FIELD, "not-enforced", message, "Envoy's variables are not known");
            }
        }
        headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
    }

    /// `host` or `namespace/host`.
    fn service(&mut self, service: &str) -> (Option<String>, String) {
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace.to_owned()), host),
            None => (None, service),
        };
        let empty = host.is_empty() || namespace.as_ref().is_some_and(String::is_empty);
        if empty || host.contains(['/', '*']) {
            let message = format!("service {service:?} is none");
            self.invalid("service", message, "write host or namespace/host");
        }
        (namespace, host.to_ascii_lowercase())
    }

    fn port(&mut self, port: &Port) -> u16 {
        let number = match port {
            Port::Number(number) => u16::try_from(*number).ok(),
            Port::Text(text) => text.parse().ok(),
        };
        number.filter(|port| *port != 0).unwrap_or_else(|| {
            self.invalid("port", "has no port from 1 to 65535".to_owned(), "write one");
            0
        })
    }

    fn timeout(&mut self, text: Option<&str>) -> Duration {
        let Some(text) = text else { return TIMEOUT };
        duration(text).filter(|timeout| !timeout.is_zero()).unwrap_or_else(|| {
            let message = format!("timeout {text:?} is no time that could be waited");
            self.invalid("timeout", message, "write for example 2s");
            TIMEOUT
        })
    }

    fn status(&mut self, text: &str) -> u16 {
        let refused = StatusCode::FORBIDDEN.as_u16();
        if text.is_empty() {
            return refused;
        }
        let status = text.parse().ok().filter(|status| (200..600).contains(status));
        status.unwrap_or_else(|| {
            let message = format!("statusOnError {text:?} is no status of an answer");
            self.invalid("statusOnError", message, "write for example \"503\"");
            refused
        })
    }

    fn body(&mut self, body: Body, grpc: bool) -> CheckedBody {
        const FIELD: &str = "includeRequestBodyInCheck";
        if body.max_request_bytes == 0 {
            self.invalid(FIELD, "maxRequestBytes is missing".to_owned(), "write it");
        }
        if body.max_request_bytes > MAX_BODY {
            let message = format!("no more than {MAX_BODY} bytes of a body are kept");
            self.warning(FIELD, "not-enforced", message, "that is what counts");
        }
        if body.pack_as_bytes && !grpc {
            let message = "packAsBytes is for gRPC alone".to_owned();
            self.warning(FIELD, "no-effect", message, "leave it out");
        }
        CheckedBody {
            max_bytes: body.max_request_bytes.min(MAX_BODY) as usize,
            partial: body.allow_partial_message,
            raw: body.pack_as_bytes,
        }
    }

    fn invalid(&mut self, field: &str, message: String, remedy: &str) {
        let path = ["spec", "extensionProviders", &self.index, self.kind, field];
        let path: Vec<&str> = path.into_iter().filter(|step| !step.is_empty()).collect();
        invalid(self.report, self.subject, &path, message, remedy);
    }

    fn warning(&mut self, field: &str, code: &'static str, message: String, remedy: &str) {
        let path = ["spec", "extensionProviders", &self.index, self.kind, field];
        self.report.warning(self.subject, &path, code, message, remedy);
    }
}

/// Names of headers: exact, `prefix*`, `*suffix`, or `*` for all.
fn patterns(texts: &[String]) -> Vec<TextMatch> {
    texts.iter().map(|text| TextMatch::parse(&text.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests;
