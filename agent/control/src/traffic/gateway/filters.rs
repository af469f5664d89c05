//! `filters` of rules and of backends.
//!
//! Source: `HTTPRouteFilter`, `GRPCRouteFilter`. A filter that cannot be applied is never passed
//! over: its requests are answered with an error.

use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::traffic::{Cors, DirectResponse, HeaderOps, HttpAction, Mirror, Rewrite};

use super::{
    backends::ObjectRef,
    cors::CorsFilter,
    cursor::Cursor,
    headers::HeaderFilter,
    paths::{PathModifier, RedirectFilter, RewriteFilter},
};
use crate::fields;

mod mirror;

use mirror::MirrorFilter;

const MAX_FILTERS: usize = 16;
/// What a request that a filter cannot be applied to is answered with.
const ERROR_STATUS: u16 = 500;
const HEADERS: &[&str] = &["set", "add", "remove"];
const HEADER: &[&str] = &["name", "value"];
const PATH: &[&str] = &["type", "replaceFullPath", "replacePrefixMatch"];

/// Fields of a filter.
pub(super) const KNOWN: [fields::Known; 17] = [
    (
        "",
        &[
            "type",
            "requestHeaderModifier",
            "responseHeaderModifier",
            "requestMirror",
            "requestRedirect",
            "urlRewrite",
            "cors",
            "externalAuth",
            "extensionRef",
        ],
    ),
    ("requestHeaderModifier", HEADERS),
    ("requestHeaderModifier.set.[]", HEADER),
    ("requestHeaderModifier.add.[]", HEADER),
    ("responseHeaderModifier", HEADERS),
    ("responseHeaderModifier.set.[]", HEADER),
    ("responseHeaderModifier.add.[]", HEADER),
    ("requestMirror", &["backendRef", "percent", "fraction"]),
    ("requestMirror.backendRef", &["group", "kind", "namespace", "name", "port"]),
    ("requestMirror.fraction", &["numerator", "denominator"]),
    ("requestRedirect", &["scheme", "hostname", "path", "port", "statusCode"]),
    ("requestRedirect.path", PATH),
    ("urlRewrite", &["hostname", "path"]),
    ("urlRewrite.path", PATH),
    (
        "cors",
        &[
            "allowOrigins",
            "allowCredentials",
            "allowMethods",
            "allowHeaders",
            "exposeHeaders",
            "maxAge",
        ],
    ),
    ("extensionRef", &["group", "kind", "name"]),
    ("externalAuth", &["protocol", "backendRef", "grpc", "http", "forwardBody"]),
];

/// One filter: a type, and the field of the same name.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    #[serde(rename = "type")]
    kind: FilterType,
    request_header_modifier: Option<HeaderFilter>,
    response_header_modifier: Option<HeaderFilter>,
    request_mirror: Option<MirrorFilter>,
    request_redirect: Option<RedirectFilter>,
    url_rewrite: Option<RewriteFilter>,
    cors: Option<CorsFilter>,
    external_auth: Option<IgnoredAny>,
    extension_ref: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
}

impl FilterType {
    /// Whether it may be there once only.
    fn is_single(self) -> bool {
        !matches!(self, Self::RequestMirror | Self::ExtensionRef)
    }

    /// Whether a GRPCRoute has it.
    fn is_for_grpc(self) -> bool {
        let headers = matches!(self, Self::RequestHeaderModifier | Self::ResponseHeaderModifier);
        headers || matches!(self, Self::RequestMirror | Self::ExtensionRef)
    }
}

impl Filter {
    /// The fields that are there, by the type they belong to.
    fn fields(&self) -> impl Iterator<Item = (FilterType, &'static str)> {
        [
            (
                self.request_header_modifier.is_some(),
                FilterType::RequestHeaderModifier,
                "requestHeaderModifier",
            ),
            (
                self.response_header_modifier.is_some(),
                FilterType::ResponseHeaderModifier,
                "responseHeaderModifier",
            ),
            (self.request_mirror.is_some(), FilterType::RequestMirror, "requestMirror"),
            (self.request_redirect.is_some(), FilterType::RequestRedirect, "requestRedirect"),
            (self.url_rewrite.is_some(), FilterType::UrlRewrite, "urlRewrite"),
            (self.cors.is_some(), FilterType::Cors, "cors"),
            (self.external_auth.is_some(), FilterType::ExternalAuth, "externalAuth"),
            (self.extension_ref.is_some(), FilterType::ExtensionRef, "extensionRef"),
        ]
        .into_iter()
        .filter_map(|(there, kind, field)| there.then_some((kind, field)))
    }

    /// The modifier of paths, and where it stands.
    pub(super) fn path(&self) -> Option<(&'static str, &PathModifier)> {
        let redirect = self.request_redirect.as_ref().and_then(|filter| filter.path.as_ref());
        let rewrite = self.url_rewrite.as_ref().and_then(|filter| filter.path.as_ref());
        let redirect = redirect.map(|path| ("requestRedirect", path));
        redirect.or_else(|| rewrite.map(|path| ("urlRewrite", path)))
    }

    /// The field of the type is there, and no other.
    fn check(&self, cursor: &mut Cursor<'_, '_>) {
        if !self.fields().any(|(kind, _)| kind == self.kind) {
            let message = format!("a filter of type {:?} has no field of that name", self.kind);
            cursor.error(&["type"], &message, "write the field that belongs to the type");
        }
        for (_, field) in self.fields().filter(|(kind, _)| *kind != self.kind) {
            let message = format!("does not belong to a filter of type {:?}", self.kind);
            cursor.error(&[field], &message, "remove it, or write a filter of its own");
        }
        if cursor.kind() == "GRPCRoute" && !self.kind.is_for_grpc() {
            let message = format!("a GRPCRoute has no filter {:?}", self.kind);
            cursor.error(&["type"], &message, "write an HTTPRoute, or remove the filter");
        }
    }
}

/// What the filters of a rule come to.
#[derive(Default)]
pub(super) struct Filtered {
    pub(super) headers: HeaderOps,
    pub(super) rewrite: Rewrite,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors: Option<Cors>,
    /// What takes the place of forwarding.
    pub(super) action: Option<HttpAction>,
}

/// Reads the filters of a rule.
pub(super) fn rule_filters(filters: &[Filter], cursor: &mut Cursor<'_, '_>) -> Filtered {
    check_together(filters, cursor);
    let mut read = Filtered::default();
    cursor.each("filters", filters, MAX_FILTERS, |cursor, filter| {
        filter.check(cursor);
        read.apply(filter, cursor);
    });
    read
}

impl Filtered {
    fn apply(&mut self, filter: &Filter, cursor: &mut Cursor<'_, '_>) {
        header_filters(filter, &mut self.headers, cursor);
        if let Some(mirror) = &filter.request_mirror {
            self.mirrors.extend(cursor.within("requestMirror", |at| mirror.read(at)));
        }
        if let Some(rewrite) = &filter.url_rewrite {
            self.rewrite = cursor.within("urlRewrite", |at| rewrite.read(at));
        }
        if let Some(cors) = &filter.cors {
            self.cors = Some(cursor.within("cors", |at| cors.read(at)));
        }
        if let Some(redirect) = &filter.request_redirect
            && self.action.is_none()
        {
            let redirect = cursor.within("requestRedirect", |at| redirect.read(at));
            self.action = Some(HttpAction::Redirect(redirect));
        }
        if matches!(filter.kind, FilterType::ExternalAuth | FilterType::ExtensionRef) {
            let message = format!("a filter of type {:?} is not supported", filter.kind);
            let remedy = "remove it; until then the rule's requests are answered with 500";
            cursor.warning(&["type"], "unsupported-filter", &message, remedy);
            let answer = DirectResponse { status: ERROR_STATUS, body: Vec::new() };
            self.action = Some(HttpAction::Direct(answer));
        }
    }
}

/// Reads the filters of a backend: its headers, or why it cannot be used.
pub(super) fn backend_filters(
    filters: &[Filter],
    cursor: &mut Cursor<'_, '_>,
) -> Result<HeaderOps, String> {
    check_together(filters, cursor);
    let mut headers = HeaderOps::default();
    let mut unusable = None;
    cursor.each("filters", filters, MAX_FILTERS, |cursor, filter| {
        filter.check(cursor);
        header_filters(filter, &mut headers, cursor);
        let known = [FilterType::RequestHeaderModifier, FilterType::ResponseHeaderModifier];
        if !known.contains(&filter.kind) {
            let reason =
                format!("a filter of type {:?} is not supported on a backend", filter.kind);
            let remedy =
                "write it on the rule; until then the backend's share is answered with 500";
            cursor.warning(&["type"], "unsupported-filter", &reason, remedy);
            unusable = Some(reason);
        }
    });
    unusable.map_or(Ok(headers), Err)
}

fn header_filters(filter: &Filter, headers: &mut HeaderOps, cursor: &mut Cursor<'_, '_>) {
    if let Some(modifier) = &filter.request_header_modifier {
        let read = cursor.within("requestHeaderModifier", |at| modifier.read(at));
        headers.request_set.extend(read.set);
        headers.request_add.extend(read.add);
        headers.request_remove.extend(read.remove);
    }
    if let Some(modifier) = &filter.response_header_modifier {
        let read = cursor.within("responseHeaderModifier", |at| modifier.read(at));
        headers.response_set.extend(read.set);
        headers.response_add.extend(read.add);
        headers.response_remove.extend(read.remove);
    }
}

/// Filters that exclude one another, and those that may not be repeated.
fn check_together(filters: &[Filter], cursor: &mut Cursor<'_, '_>) {
    for (index, filter) in filters.iter().enumerate() {
        let above = || filters.iter().take(index).map(|other| other.kind);
        let index = index.to_string();
        if filter.kind.is_single() && above().any(|kind| kind == filter.kind) {
            let message = format!("a filter of type {:?} is there already", filter.kind);
            cursor.error(&["filters", &index], &message, "write one filter of this type");
        }
        let other = match filter.kind {
            FilterType::RequestRedirect => FilterType::UrlRewrite,
            FilterType::UrlRewrite => FilterType::RequestRedirect,
            _ => continue,
        };
        if above().any(|kind| kind == other) {
            let message = "RequestRedirect and URLRewrite exclude one another";
            cursor.error(&["filters", &index], message, "remove one of the two filters");
        }
    }
}
