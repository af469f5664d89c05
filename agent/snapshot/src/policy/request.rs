//! What rules look at in a request.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use serde_json::{Map, Value};
use undermesh_model::{Operation, PathMatch, PrincipalMatch, Source, TextMatch, Values};

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestAttributes<'a> {
    /// The method.
    pub method: &'a str,
    /// Its authority in lower case, with and without its port: in every way that a server may read it.
    pub hosts: &'a [String],
    /// The path without its query, in every way that a server may read it. For both lists: what is refused
    /// is refused if one of the readings is, and what is allowed only if all are.
    pub paths: &'a [String],
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What its token says, where it has a valid one.
    pub claims: Option<&'a Map<String, Value>>,
    /// Where it comes from originally.
    pub remote: IpAddr,
}

impl<'a> RequestAttributes<'a> {
    /// A claim of the request's token.
    pub fn claim(&self, path: &[String]) -> Option<&'a Value> {
        claim(self.claims, path)
    }
}

/// What has to be true of a request; empty fields are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequestMatch {
    /// Whom the token is from.
    pub principals: Values<PrincipalMatch>,
    /// Where it comes from originally.
    pub remote: Values<IpNet>,
    /// The authority.
    pub hosts: Values<TextMatch>,
    /// The method.
    pub methods: Values<TextMatch>,
    /// The path.
    pub paths: Values<PathMatch>,
    /// Headers by their names.
    pub headers: Vec<(String, Values<TextMatch>)>,
    /// Claims of the token by their paths.
    pub claims: Vec<(Vec<String>, Values<TextMatch>)>,
}

/// How something ambiguous is read: in the way that refuses more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// The rule allows: all readings have to match.
    All,
    /// The rule refuses, reports or asks: one is enough.
    Any,
}

impl RequestMatch {
    /// Nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.principals.is_empty()
            && self.remote.is_empty()
            && self.hosts.is_empty()
            && self.methods.is_empty()
            && self.paths.is_empty()
            && self.headers.is_empty()
            && self.claims.is_empty()
    }

    pub(super) fn is(&self, request: &RequestAttributes<'_>, reading: Reading) -> bool {
        let host = |text: &String| self.hosts.admit(|pattern| pattern.matches(text));
        let path = |text: &String| self.paths.admit(|pattern| pattern.matches(text));
        reading.of(request.hosts, &self.hosts, host)
            && reading.of(request.paths, &self.paths, path)
            && self.methods.admit(|method| method.matches(request.method))
            && self.remote.admit(|block| block.contains(&request.remote))
            && self.headers.iter().all(|(name, values)| is_header(values, request.headers, name))
            && self.principals.admit(|principal| is_principal(principal, request.claims))
            && self.claims.iter().all(|(path, values)| is_claim(values, request.claims, path))
    }
}

impl Reading {
    fn of<T>(self, readings: &[String], values: &Values<T>, is: impl Fn(&String) -> bool) -> bool {
        values.is_empty()
            || match self {
                Self::All => readings.iter().all(is),
                Self::Any => readings.iter().any(is),
            }
    }
}

/// Several fields of one name are one list, as HTTP has it; its parts count as well, so that no value can
/// hide behind another.
fn is_header(values: &Values<TextMatch>, headers: &HeaderMap, name: &str) -> bool {
    let fields: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if fields.is_empty() {
        return values.any_of.is_empty();
    }
    let joined = String::from_utf8_lossy(&fields.join(&b","[..])).into_owned();
    let is_any = |pattern: &TextMatch| *pattern == TextMatch::Present || pattern.matches(&joined);
    let hides = |pattern: &TextMatch| {
        let mut each = fields.iter().map(|field| String::from_utf8_lossy(field));
        is_any(pattern) || each.any(|field| pattern.matches(&field))
    };
    (values.any_of.is_empty() || values.any_of.iter().any(is_any))
        && !values.none_of.iter().any(hides)
}

fn is_principal(principal: &PrincipalMatch, claims: Option<&Map<String, Value>>) -> bool {
    let claim = |name: &str| claims?.get(name)?.as_str();
    match (claim("iss"), claim("sub")) {
        (Some(issuer), subject) => principal.matches(issuer, subject.unwrap_or_default()),
        (None, _) => false,
    }
}

fn claim<'a>(claims: Option<&'a Map<String, Value>>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims?.get(first)?, |value, name| value.as_object()?.get(name))
}

/// A claim that is a list has every one of its values. Only text counts.
fn is_claim(
    values: &Values<TextMatch>,
    claims: Option<&Map<String, Value>>,
    path: &[String],
) -> bool {
    let texts: Vec<&str> = match claim(claims, path) {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(text)) => vec![text],
        _ => Vec::new(),
    };
    values.admit(|pattern| texts.iter().any(|text| pattern.matches(text)))
}

impl From<&Source> for RequestMatch {
    fn from(source: &Source) -> Self {
        Self {
            principals: source.request_principals.clone(),
            remote: source.remote_addresses.clone(),
            ..Self::default()
        }
    }
}

impl From<&Operation> for RequestMatch {
    fn from(operation: &Operation) -> Self {
        Self {
            hosts: operation.hosts.clone(),
            methods: operation.methods.clone(),
            paths: operation.paths.clone(),
            ..Self::default()
        }
    }
}
