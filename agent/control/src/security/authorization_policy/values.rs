//! The lists inside a rule.

use undermesh_model::{
    self as model, Operation, ServiceAccountMatch, Source, TextMatch, Values, parse_block,
};

use super::{super::invalid, Condition, Lists, Rule, port};
use crate::report::{Report, Subject};

/// Fields of a source that layer 4 can tell.
const SOURCE_LAYER_4: [&str; 10] = [
    "principals",
    "notPrincipals",
    "namespaces",
    "notNamespaces",
    "trustDomains",
    "notTrustDomains",
    "serviceAccounts",
    "notServiceAccounts",
    "ipBlocks",
    "notIpBlocks",
];
/// Fields of a source and of an operation that only layer 7 can tell.
const SOURCE_LAYER_7: [&str; 4] =
    ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"];
const OPERATION_LAYER_7: [&str; 6] =
    ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"];

/// Reads one rule of a policy.
pub(super) struct Reader<'a> {
    /// Which rule it is.
    index: String,
    subject: &'a Subject<'a>,
    report: &'a mut Report,
}

impl<'a> Reader<'a> {
    pub(super) fn new(index: usize, subject: &'a Subject<'a>, report: &'a mut Report) -> Self {
        Self { index: index.to_string(), subject, report }
    }

    pub(super) fn rule(mut self, rule: &Rule) -> model::Rule {
        let mut read = model::Rule::default();
        let empty = Lists::new();
        for from in &rule.from {
            let lists = from.source.as_ref().unwrap_or(&empty);
            let source = self.source(lists, &mut read.layer7);
            read.from.push(source);
        }
        for to in &rule.to {
            let lists = to.operation.as_ref().unwrap_or(&empty);
            let operation = self.operation(lists, &mut read.layer7);
            read.to.push(operation);
        }
        for condition in &rule.when {
            let condition = self.condition(condition, &mut read.layer7);
            read.when.extend(condition);
        }
        read
    }

    fn source(&mut self, lists: &Lists, layer7: &mut Vec<String>) -> Source {
        let source = Source {
            principals: self.values(lists, "principals", "notPrincipals", Self::text),
            namespaces: self.values(lists, "namespaces", "notNamespaces", Self::text),
            trust_domains: self.values(lists, "trustDomains", "notTrustDomains", Self::text),
            service_accounts: self.values(
                lists,
                "serviceAccounts",
                "notServiceAccounts",
                Self::account,
            ),
            addresses: self.values(lists, "ipBlocks", "notIpBlocks", Self::block),
        };
        let beside = [&source.principals, &source.namespaces];
        if !source.service_accounts.is_empty() && beside.iter().any(|list| !list.is_empty()) {
            self.invalid(
                "a source has serviceAccounts beside principals or namespaces".to_owned(),
                "write sources of their own",
            );
        }
        self.other_fields("source", lists, &SOURCE_LAYER_4, &SOURCE_LAYER_7, layer7);
        source
    }

    fn operation(&mut self, lists: &Lists, layer7: &mut Vec<String>) -> Operation {
        self.other_fields("operation", lists, &["ports", "notPorts"], &OPERATION_LAYER_7, layer7);
        Operation { ports: self.values(lists, "ports", "notPorts", Self::port) }
    }

    /// Istio refuses a source or an operation that says nothing; so do we, as it would match all.
    fn other_fields(
        &mut self,
        what: &str,
        lists: &Lists,
        layer_4: &[&str],
        layer_7: &[&str],
        found: &mut Vec<String>,
    ) {
        for (name, list) in lists {
            if layer_7.contains(&name.as_str()) {
                if !list.is_empty() {
                    found.push(name.clone());
                }
            } else if !layer_4.contains(&name.as_str()) {
                self.unknown(format!("field {name:?} of a {what} is not known"));
                found.push(name.clone());
            }
        }
        if lists.values().all(Vec::is_empty) {
            self.invalid(format!("a {what} is empty"), "say what it matches, or leave it out");
        }
    }

    fn condition(
        &mut self,
        condition: &Condition,
        layer7: &mut Vec<String>,
    ) -> Option<model::Condition> {
        use model::Condition as Is;
        let Condition { key, values, not_values } = condition;
        if values.is_empty() && not_values.is_empty() {
            let message = format!("condition {key:?} has neither values nor notValues");
            self.invalid(message, "write one of them");
        }
        let key = key.as_str();
        let mut texts = || self.both(key, values, not_values, Self::text);
        Some(match key {
            "source.namespace" => Is::SourceNamespace(texts()),
            "source.principal" => Is::SourcePrincipal(texts()),
            "source.serviceAccount" => {
                Is::SourceServiceAccount(self.both(key, values, not_values, Self::account))
            }
            "source.ip" => Is::SourceAddress(self.both(key, values, not_values, Self::block)),
            "destination.ip" => {
                Is::DestinationAddress(self.both(key, values, not_values, Self::block))
            }
            "destination.port" => {
                Is::DestinationPort(self.both(key, values, not_values, Self::port))
            }
            _ => {
                if !is_layer_7(key) {
                    self.unknown(format!("condition {key:?} is not known"));
                }
                layer7.push(key.to_owned());
                return None;
            }
        })
    }

    fn values<T>(
        &mut self,
        lists: &Lists,
        field: &str,
        not_field: &str,
        read: fn(&Self, &str) -> Option<T>,
    ) -> Values<T> {
        let list = |name: &str| lists.get(name).map(Vec::as_slice).unwrap_or_default();
        self.both(field, list(field), list(not_field), read)
    }

    fn both<T>(
        &mut self,
        field: &str,
        any_of: &[String],
        none_of: &[String],
        read: fn(&Self, &str) -> Option<T>,
    ) -> Values<T> {
        let mut list = |texts: &[String]| {
            let mut values = Vec::with_capacity(texts.len());
            for text in texts {
                match read(self, text) {
                    Some(value) => values.push(value),
                    None => self.invalid(
                        format!("{text:?} is no value of {field}"),
                        "see docs/reference/policy.md",
                    ),
                }
            }
            values
        };
        Values { any_of: list(any_of), none_of: list(none_of) }
    }

    fn text(&self, text: &str) -> Option<TextMatch> {
        (!text.is_empty()).then(|| TextMatch::parse(text))
    }

    /// `namespace/name`, or a name of the policy's own namespace. Exact: an asterisk is a mistake.
    fn account(&self, text: &str) -> Option<ServiceAccountMatch> {
        let (namespace, name) =
            text.split_once('/').unwrap_or((&self.subject.origin.namespace, text));
        let is_part = |part: &str| !part.is_empty() && !part.contains(['*', '/']);
        (is_part(namespace) && is_part(name))
            .then(|| ServiceAccountMatch { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn block(&self, text: &str) -> Option<ipnet::IpNet> {
        parse_block(text)
    }

    fn port(&self, text: &str) -> Option<u16> {
        port(text)
    }

    /// Something that may be of a newer Istio. It is treated as what only layer 7 can tell: passed
    /// over, it would let a rule allow more than is written.
    fn unknown(&mut self, message: String) {
        let remedy = "correct its name; until then the rule allows nothing, or denies more";
        let path = ["spec", "rules", &self.index];
        self.report.warning(self.subject, &path, "unknown-field", message, remedy);
    }

    fn invalid(&mut self, message: String, remedy: &str) {
        let path = ["spec", "rules", &self.index];
        invalid(self.report, self.subject, &path, message, remedy);
    }
}

/// Istio's other keys, none of which layer 4 can tell.
fn is_layer_7(key: &str) -> bool {
    key == "connection.sni"
        || key == "remote.ip"
        || key == "source.user"
        || key == "destination.user"
        || ["request.", "experimental."].iter().any(|prefix| key.starts_with(prefix))
}
