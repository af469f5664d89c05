//! AuthorizationPolicy: who may connect, and which requests are answered.
//!
//! Source: Istio, `security/v1beta1/authorization_policy.proto`.

mod path;
mod principal;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{NamespacedName, ResourceRef};
pub use path::{PathMatch, PathTemplate};
pub use principal::PrincipalMatch;

/// One AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// What a match means.
    pub action: PolicyAction,
    /// Whom CUSTOM asks: the name of an extension provider.
    pub provider: Option<String>,
    /// Labels of the workloads that it is about; empty for all of its scope.
    pub selector: BTreeMap<String, String>,
    /// Annotation `istio.io/dry-run`: what it would do is reported and not done.
    pub dry_run: bool,
    /// It matches where any of these does.
    pub rules: Vec<Rule>,
}

/// What the match of a policy means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyAction {
    /// Let it pass; where such a policy exists, nothing else passes.
    #[default]
    Allow,
    /// Refuse it, whatever else allows it.
    Deny,
    /// Report it.
    Audit,
    /// Ask somebody outside the mesh, before anything else is asked.
    Custom,
}

/// One rule: a source, an operation and every condition have to match. An empty list matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// One of these has to match.
    pub from: Vec<Source>,
    /// One of these has to match.
    pub to: Vec<Operation>,
    /// All of these have to match.
    pub when: Vec<Condition>,
    /// Fields and keys that the rule has as well and that nobody knows: whether they match cannot be
    /// told.
    pub unknown: Vec<String>,
}

impl Rule {
    /// It asks for something that only a request has.
    pub fn looks_at_requests(&self) -> bool {
        let source =
            |one: &Source| !one.request_principals.is_empty() || !one.remote_addresses.is_empty();
        let operation = |one: &Operation| {
            !one.hosts.is_empty() || !one.methods.is_empty() || !one.paths.is_empty()
        };
        let condition = |one: &Condition| {
            matches!(
                one,
                Condition::RemoteAddress(_)
                    | Condition::RequestHeader(..)
                    | Condition::RequestPrincipal(_)
                    | Condition::RequestClaim(..)
            )
        };
        self.from.iter().any(source)
            || self.to.iter().any(operation)
            || self.when.iter().any(condition)
    }
}

/// Values that have to be among, and values that must not be among, what is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Values<T> {
    /// One of these has to match; empty where the field is not set.
    pub any_of: Vec<T>,
    /// None of these may match (`not...`).
    pub none_of: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any_of: Vec::new(), none_of: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Neither list has an entry.
    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    /// Whether both lists are content with what `is` says of their entries.
    pub fn admit(&self, is: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&is)) && !self.none_of.iter().any(&is)
    }
}

/// Who connects. Every field has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// `cluster.local/ns/shop/sa/cart`.
    pub principals: Values<TextMatch>,
    /// Namespace of the identity.
    pub namespaces: Values<TextMatch>,
    /// Trust domain of the identity.
    pub trust_domains: Values<TextMatch>,
    /// Service account of the identity.
    pub service_accounts: Values<ServiceAccountMatch>,
    /// Address that the connection comes from (`ipBlocks`).
    pub addresses: Values<IpNet>,
    /// Who a request's token says it is from, as `issuer/subject`.
    pub request_principals: Values<PrincipalMatch>,
    /// Address that a request comes from originally (`remoteIpBlocks`).
    pub remote_addresses: Values<IpNet>,
}

/// What is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The port in the pod.
    pub ports: Values<u16>,
    /// `Host` or `:authority`, whatever its case.
    pub hosts: Values<TextMatch>,
    /// The method.
    pub methods: Values<TextMatch>,
    /// The path without its query.
    pub paths: Values<PathMatch>,
}

/// One entry of `when`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// `source.ip`.
    SourceAddress(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<TextMatch>),
    /// `source.principal`.
    SourcePrincipal(Values<TextMatch>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<ServiceAccountMatch>),
    /// `source.trustDomain`.
    SourceTrustDomain(Values<TextMatch>),
    /// `destination.ip`.
    DestinationAddress(Values<IpNet>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `remote.ip`.
    RemoteAddress(Values<IpNet>),
    /// `request.headers[name]`, the name in lower case.
    RequestHeader(String, Values<TextMatch>),
    /// `request.auth.principal`.
    RequestPrincipal(Values<PrincipalMatch>),
    /// `request.auth.claims[a][b]`; `request.auth.audiences` and `request.auth.presenter` are the claims
    /// `aud` and `azp`.
    RequestClaim(Vec<String>, Values<TextMatch>),
}

/// Istio's string match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// The text itself.
    Exact(String),
    /// `abc*`.
    Prefix(String),
    /// `*abc`.
    Suffix(String),
    /// `*`: anything but nothing.
    Present,
}

impl TextMatch {
    /// Reads Istio's way of writing it. A second asterisk stands for itself.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    /// Whether `text` matches; absent text never does.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Present => !text.is_empty(),
        }
    }
}

/// One service account of one namespace, in whatever trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountMatch {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Reads an address or a block of addresses; IPv4-mapped ones become IPv4.
pub fn parse_block(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_matches_exactly_by_prefix_by_suffix_or_by_presence() {
        for (pattern, text, matches) in [
            ("shop", "shop", true),
            ("shop", "shopping", false),
            ("shop*", "shopping", true),
            ("*ing", "shopping", true),
            ("*ing", "shop", false),
            ("*", "x", true),
            ("*", "", false),
            ("*a*", "bca*", true),
            ("*a*", "bcad", false),
        ] {
            assert_eq!(TextMatch::parse(pattern).matches(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn blocks_are_addresses_or_prefixes() {
        assert_eq!(parse_block("10.0.0.1"), "10.0.0.1/32".parse().ok());
        assert_eq!(parse_block("::ffff:10.0.0.1"), "10.0.0.1/32".parse().ok());
        assert_eq!(parse_block("fd00::/8"), "fd00::/8".parse().ok());
        assert_eq!(parse_block("10.0.0.0/33"), None);
        assert_eq!(parse_block(""), None);
    }
}
