//! The lists inside a rule.

use schemars::{Schema, SchemaGenerator, json_schema};
use undermesh_model::{
    self as model, Operation, PathMatch, PrincipalMatch, ServiceAccountMatch, Source, TextMatch,
    Values, parse_block,
};

use super::{super::invalid, Condition, Lists, Rule, port};
use crate::report::{Report, Subject};

/// Fields of a source; each has one beside it that begins with `not`.
const SOURCE: [&str; 7] = [
    "principals",
    "namespaces",
    "trustDomains",
    "serviceAccounts",
    "ipBlocks",
    "requestPrincipals",
    "remoteIpBlocks",
];
/// Fields of an operation.
const OPERATION: [&str; 4] = ["ports", "hosts", "methods", "paths"];
/// Longest name of a header or claim.
const MAX_NAME: usize = 256;

/// Reads one rule of a policy.
pub(in crate::security) struct Reader<'a> {
    /// Which rule it is.
    index: String,
    subject: &'a Subject<'a>,
    report: &'a mut Report,
    /// Fields and keys that nobody knows.
    unknown: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(in crate::security) fn new(
        index: usize,
        subject: &'a Subject<'a>,
        report: &'a mut Report,
    ) -> Self {
        Self { index: index.to_string(), subject, report, unknown: Vec::new() }
    }

    pub(in crate::security) fn rule(mut self, rule: &Rule) -> model::Rule {
        let empty = Lists::new();
        let from = rule.from.iter().map(|from| from.source.as_ref().unwrap_or(&empty));
        let from = from.map(|lists| self.source(lists)).collect();
        let to = rule.to.iter().map(|to| to.operation.as_ref().unwrap_or(&empty));
        let to = to.map(|lists| self.operation(lists)).collect();
        let when = rule.when.iter().filter_map(|condition| self.condition(condition)).collect();
        model::Rule { from, to, when, unknown: self.unknown }
    }

    fn source(&mut self, lists: &Lists) -> Source {
        let source = Source {
            principals: self.values(lists, "principals", Self::text),
            namespaces: self.values(lists, "namespaces", Self::text),
            trust_domains: self.values(lists, "trustDomains", Self::text),
            service_accounts: self.values(lists, "serviceAccounts", Self::account),
            addresses: self.values(lists, "ipBlocks", Self::block),
            request_principals: self.values(lists, "requestPrincipals", Self::principal),
            remote_addresses: self.values(lists, "remoteIpBlocks", Self::block),
        };
        let beside = [&source.principals, &source.namespaces];
        if !source.service_accounts.is_empty() && beside.iter().any(|list| !list.is_empty()) {
            self.invalid(
                "a source has serviceAccounts beside principals or namespaces".to_owned(),
                "write sources of their own",
            );
        }
        self.other_fields("source", lists, &SOURCE);
        source
    }

    fn operation(&mut self, lists: &Lists) -> Operation {
        self.other_fields("operation", lists, &OPERATION);
        Operation {
            ports: self.values(lists, "ports", Self::port),
            hosts: self.values(lists, "hosts", Self::host),
            methods: self.values(lists, "methods", Self::text),
            paths: self.values(lists, "paths", Self::path),
        }
    }

    /// Istio refuses a source or an operation that says nothing; so do we, as it would match all.
    fn other_fields(&mut self, what: &str, lists: &Lists, known: &[&str]) {
        for name in lists.keys() {
            if !known.iter().any(|field| name == field || *name == not(field)) {
                self.unknown(format!("field {name:?} of a {what} is not known"), name);
            }
        }
        if lists.values().all(Vec::is_empty) {
            self.invalid(format!("a {what} is empty"), "say what it matches, or leave it out");
        }
    }

    fn condition(&mut self, condition: &Condition) -> Option<model::Condition> {
        use model::Condition as Is;
        let Condition { key, values, not_values } = condition;
        if values.is_empty() && not_values.is_empty() {
            let message = format!("condition {key:?} has neither values nor notValues");
            self.invalid(message, "write one of them");
        }
        let key = key.as_str();
        let lists = (values.as_slice(), not_values.as_slice());
        let name = |prefix: &str| in_brackets(key.strip_prefix(prefix)?);
        Some(match key {
            "source.namespace" => Is::SourceNamespace(self.both(key, lists, Self::text)),
            "source.principal" => Is::SourcePrincipal(self.both(key, lists, Self::text)),
            "source.trustDomain" => Is::SourceTrustDomain(self.both(key, lists, Self::text)),
            "source.serviceAccount" => {
                Is::SourceServiceAccount(self.both(key, lists, Self::account))
            }
            "source.ip" => Is::SourceAddress(self.both(key, lists, Self::block)),
            "destination.ip" => Is::DestinationAddress(self.both(key, lists, Self::block)),
            "destination.port" => Is::DestinationPort(self.both(key, lists, Self::port)),
            "remote.ip" => Is::RemoteAddress(self.both(key, lists, Self::block)),
            "request.auth.principal" => {
                Is::RequestPrincipal(self.both(key, lists, Self::principal))
            }
            "request.auth.audiences" => self.claim(vec!["aud".to_owned()], key, lists),
            "request.auth.presenter" => self.claim(vec!["azp".to_owned()], key, lists),
            _ if let Some(path) = name("request.auth.claims") => self.claim(path, key, lists),
            _ if let Some([header]) = name("request.headers").as_deref() => {
                Is::RequestHeader(header.to_ascii_lowercase(), self.both(key, lists, Self::text))
            }
            _ if is_of_envoy(key) => {
                self.unknown(format!("condition {key:?} is not supported"), key);
                return None;
            }
            _ => {
                self.unknown(format!("condition {key:?} is not known"), key);
                return None;
            }
        })
    }

    fn claim(
        &mut self,
        path: Vec<String>,
        key: &str,
        lists: (&[String], &[String]),
    ) -> model::Condition {
        model::Condition::RequestClaim(path, self.both(key, lists, Self::text))
    }

    fn values<T>(
        &mut self,
        lists: &Lists,
        field: &str,
        read: fn(&Self, &str) -> Option<T>,
    ) -> Values<T> {
        let list = |name: &str| lists.get(name).map(Vec::as_slice).unwrap_or_default();
        self.both(field, (list(field), list(&not(field))), read)
    }

    fn both<T>(
        &mut self,
        field: &str,
        (any_of, none_of): (&[String], &[String]),
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

    /// Compared without regard to case, so kept in lower case.
    fn host(&self, text: &str) -> Option<TextMatch> {
        self.text(&text.to_ascii_lowercase())
    }

    fn path(&self, text: &str) -> Option<PathMatch> {
        PathMatch::parse(text)
    }

    fn principal(&self, text: &str) -> Option<PrincipalMatch> {
        (!text.is_empty()).then(|| PrincipalMatch::parse(text))
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

    /// Something that may be of a newer Istio. Passed over, it would let a rule allow more than is
    /// written.
    fn unknown(&mut self, message: String, name: &str) {
        let remedy = "correct its name; until then the rule allows nothing, or denies more";
        let path = ["spec", "rules", &self.index];
        self.report.warning(self.subject, &path, "unknown-field", message, remedy);
        self.unknown.push(name.to_owned());
    }

    fn invalid(&mut self, message: String, remedy: &str) {
        let path = ["spec", "rules", &self.index];
        invalid(self.report, self.subject, &path, message, remedy);
    }
}

/// Istio's keys that mean something to Envoy alone, or to a proxy that ends the application's TLS.
fn is_of_envoy(key: &str) -> bool {
    key == "connection.sni" || key.starts_with("experimental.envoy.filters.")
}

/// What definitions say of a source.
pub(super) fn source_schema(_: &mut SchemaGenerator) -> Schema {
    lists(&SOURCE)
}

/// What definitions say of an operation.
pub(super) fn operation_schema(_: &mut SchemaGenerator) -> Schema {
    lists(&OPERATION)
}

fn lists(fields: &[&str]) -> Schema {
    let both = fields.iter().flat_map(|field| [(*field).to_owned(), not(field)]);
    let texts = || json_schema!({"type": "array", "items": {"type": "string"}});
    let properties: serde_json::Map<_, _> = both.map(|field| (field, texts().to_value())).collect();
    json_schema!({"type": "object", "minProperties": 1, "properties": properties})
}

/// `ports` -> `notPorts`.
fn not(field: &str) -> String {
    let mut letters = field.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    ["not".chars().collect(), first.into_iter().collect(), letters.collect::<String>()].concat()
}

/// `[a][b]` -> `a`, `b`.
pub(in crate::security) fn in_brackets(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<String> = inner.split("][").map(str::to_owned).collect();
    let is_name = |name: &String| !name.is_empty() && !name.contains(['[', ']']);
    (inner.len() <= MAX_NAME && names.iter().all(is_name)).then_some(names)
}
