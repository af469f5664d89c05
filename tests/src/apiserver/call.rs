//! A request as Kubernetes reads it: a verb about a resource, or a page of the server itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use super::answer::Refusal;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for pages of the
    /// server itself, the method in small letters.
    pub verb: String,
    /// The path, without the query.
    pub path: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The version in the path.
    pub version: String,
    /// The resource; empty for pages of the server itself and for discovery.
    pub plural: String,
    /// The namespace in the path.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// `status`, `token`, ...
    pub subresource: String,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// `Accept`.
    pub accept: String,
    /// `Content-Type`.
    pub content_type: String,
    /// Who asks: the token of `Authorization`.
    pub token: String,
    /// The content.
    pub body: Bytes,
}

impl Call {
    pub(super) fn new(
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Self {
        let text = |name| {
            let value: Option<&header::HeaderValue> = headers.get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let token = text(header::AUTHORIZATION);
        let mut call = Self {
            verb: method.as_str().to_ascii_lowercase(),
            path: path.to_owned(),
            query: parse_query(query),
            accept: text(header::ACCEPT),
            content_type: text(header::CONTENT_TYPE),
            token: token.strip_prefix("Bearer ").unwrap_or_default().to_owned(),
            body,
            ..Self::default()
        };
        call.read_path(method);
        call
    }

    fn read_path(&mut self, method: &Method) {
        let path = self.path.clone();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] => {
                self.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] => {
                (self.group, self.version) = ((*group).to_owned(), (*version).to_owned());
                rest
            }
            _ => return,
        };
        let rest = match rest {
            // The namespace itself, and its subresources.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => rest,
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_owned();
                rest
            }
            rest => rest,
        };
        let mut rest = rest.iter().map(|part| (*part).to_owned());
        self.plural = rest.next().unwrap_or_default();
        self.name = rest.next().unwrap_or_default();
        self.subresource = rest.next().unwrap_or_default();
        if self.plural.is_empty() {
            return;
        }
        let whole = self.name.is_empty();
        self.verb = match *method {
            Method::GET if whole && self.is("watch") => "watch",
            Method::GET if whole => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if whole => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
    }

    /// A parameter of the query; empty where there is none.
    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a parameter is true.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }

    /// A parameter that is a number; `None` where it is not given.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.param(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::bad(format!("{name}: Invalid value: {text:?}"))),
        }
    }

    /// Whether only metadata is wanted.
    pub(super) fn wants_metadata(&self) -> bool {
        let first = self.accept.split(',').next().unwrap_or_default();
        first.contains("as=PartialObjectMetadata")
    }

    /// The content as an object; YAML is taken as well.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn object(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body)
            .or_else(|_| serde_yaml_ng::from_slice(&self.body))
            .map_err(|error| Refusal::bad(format!("the object cannot be read: {error}")))
    }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Percent-encoding, and `+` for a blank.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().unwrap_or(0), digit().unwrap_or(0));
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, path: &str, query: &str) -> Call {
        Call::new(&method, path, query, &HeaderMap::new(), Bytes::new())
    }

    #[test]
    fn paths_name_a_verb_and_a_resource() {
        for (method, path, query, expected) in [
            (Method::GET, "/api/v1/pods", "", "list :pods//"),
            (Method::GET, "/api/v1/pods", "watch=1", "watch :pods//"),
            (Method::GET, "/api/v1/namespaces/shop", "", "get :namespaces//shop"),
            (
                Method::PATCH,
                "/api/v1/namespaces/shop/pods/a/status",
                "",
                "patch :pods/shop/a status",
            ),
            (Method::POST, "/apis/a.io/v1/namespaces/shop/things", "", "create a.io:things/shop/"),
            (Method::DELETE, "/apis/a.io/v1/things/x", "", "delete a.io:things//x"),
            (Method::GET, "/apis/a.io/v1", "", "get a.io://"),
        ] {
            let call = call(method, path, query);
            let found = format!(
                "{} {}:{}/{}/{} {}",
                call.verb, call.group, call.plural, call.namespace, call.name, call.subresource
            );
            assert_eq!(found.trim_end(), expected);
        }
        let call = call(Method::GET, "/api/v1/pods", "fieldSelector=spec.nodeName%3Da%2Bb&x=a+b");
        assert_eq!((call.param("fieldSelector"), call.param("x")), ("spec.nodeName=a+b", "a b"));
    }
}
