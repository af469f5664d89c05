//! RateLimitPolicy: how much is served. Rules match as those of AuthorizationPolicy do.

use std::{collections::HashSet, num::NonZeroU32, time::Duration};

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use undermesh_model::{
    self as model, LimitAnswer, LimitHeaders, LimitKey, LimitRule, Limits, NamespacedName, Rate,
};

use super::{
    Selector,
    authorization_policy::{self as authorization, in_brackets},
    invalid, labels,
};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
    traffic::duration,
};

/// Budgets that a rule keeps where nothing is said.
const MAX_KEYS: usize = 10_000;
/// What `maxKeys` may say: a budget takes some 40 bytes.
const LEAST_KEYS: usize = 2;
const MOST_KEYS: usize = 1_000_000;
/// The finest rate, as the time between two.
const FINEST: Duration = Duration::from_micros(1);
/// Longest period.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Longest time in which a whole burst comes back.
const LONGEST_REFILL: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest text of an answer.
const MAX_TEXT: usize = 4096;
/// Longest name of a rule.
const MAX_NAME: usize = 63;

const KNOWN: [fields::Known; 8] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["selector", "shadow", "rules"]),
    ("spec.selector", &["matchLabels"]),
    (
        "spec.rules.[]",
        &[
            "name",
            "from",
            "to",
            "when",
            "requests",
            "connections",
            "maxBodyBytes",
            "key",
            "maxKeys",
            "answer",
        ],
    ),
    ("spec.rules.[].when.[]", &["key", "values", "notValues"]),
    ("spec.rules.[].requests", &["count", "per", "burst"]),
    ("spec.rules.[].connections", &["count", "per", "burst"]),
    ("spec.rules.[].answer", &["status", "body", "grpcStatus", "headers"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RateLimitPolicy {
    #[serde(default)]
    spec: Spec,
}

/// What is written of it; the definition in API servers is made of this.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Spec {
    /// The pods that are guarded; all by default.
    selector: Option<Selector>,
    /// Counts and reports, and refuses nothing.
    shadow: bool,
    /// Each for itself: what a single one refuses is refused.
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(one, !has(one.name) || self.exists_one(other, has(other.name) && other.name == one.name))",
            "message": "two rules have the same name: give each one of its own"
        }])
    )]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.requests) || has(self.connections) || has(self.maxBodyBytes)",
        "message": "the rule limits nothing: write requests, connections or maxBodyBytes"
    },
    {
        "rule": "!has(self.connections) || !has(self.key) || self.key.all(one, one in ['pod', 'source.principal', 'source.namespace', 'source.ip'])",
        "message": "connections cannot be counted by what only their requests have: limit requests, or write a rule of its own"
    },
    {
        "rule": "!has(self.connections) || !has(self.to) || self.to.all(one, !has(one.operation) || !(has(one.operation.hosts) || has(one.operation.methods) || has(one.operation.paths)))",
        "message": "connections cannot be limited by host, method or path: limit requests, or write a rule of its own"
    }
]))]
struct Rule {
    /// As logs and metrics call it; by default the rule's place, from 0.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[-_.A-Za-z0-9]*$')",
            "message": "write up to 63 letters, digits, '-', '_' and '.'"
        }])
    )]
    name: Option<String>,
    /// From whom, as in AuthorizationPolicy; from everybody by default.
    from: Vec<authorization::From>,
    /// What, as in AuthorizationPolicy; everything by default.
    #[schemars(length(max = 64))]
    to: Vec<authorization::To>,
    /// Further conditions, as in AuthorizationPolicy.
    when: Vec<authorization::Condition>,
    /// How many requests are served.
    requests: Option<Amount>,
    /// How many connections are taken.
    connections: Option<Amount>,
    /// The longest body of a request, in bytes.
    max_body_bytes: Option<u64>,
    /// What has a budget of its own: each pod, caller, method, header or claim, or each combination of several.
    #[schemars(schema_with = "key")]
    key: Vec<String>,
    /// As many budgets are kept at once; 10000 by default.
    #[schemars(range(min = 2, max = 1_000_000))]
    max_keys: Option<usize>,
    /// What is told to who is refused.
    answer: Answer,
}

/// One message for all that it may be.
fn key(_: &mut SchemaGenerator) -> Schema {
    const RULE: &str = r"self in ['pod', 'source.principal', 'source.namespace', 'source.ip', \
        'remote.ip', 'request.method', 'request.host', 'request.path'] \
        || self.matches(r'^request\.headers\[[^\[\]]+\]$') \
        || self.matches(r'^request\.auth\.claims(\[[^\[\]]+\])+$')";
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "string",
            "maxLength": 300,
            "x-kubernetes-validations": [{
                "rule": RULE.replace("\\\n        ", ""),
                "message": "write pod, source.principal, source.namespace, source.ip, remote.ip, \
                    request.method, request.host, request.path, request.headers[NAME] or \
                    request.auth.claims[NAME]"
            }]
        }
    })
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct Amount {
    /// As many...
    #[schemars(range(min = 1))]
    count: u32,
    /// ...in this time, for example `1s`; up to `24h`.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^([0-9]+([.][0-9]+)?(h|m|s|ms|us|ns))+$') && self.matches('[1-9]')",
            "message": "write a time above zero, for example 1s or 2m30s"
        }])
    )]
    per: String,
    /// As many at once, where some time was quiet; `count` by default.
    #[schemars(range(min = 1))]
    burst: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    /// 429 by default.
    #[schemars(range(min = 400, max = 599))]
    status: Option<u16>,
    /// The text of the answer.
    #[schemars(length(max = 4096))]
    body: Option<String>,
    /// The status of a refused call.
    grpc_status: GrpcStatus,
    /// Which answers have headers that tell what is left.
    headers: Headers,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum GrpcStatus {
    #[default]
    Unavailable,
    ResourceExhausted,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Headers {
    #[default]
    Refused,
    Always,
    Never,
}

/// Reads a RateLimitPolicy.
pub(crate) fn rate_limit_policy(
    object: &RateLimitPolicy,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<model::RateLimitPolicy> {
    fields::check(&KNOWN, subject, report);
    let spec = &object.spec;
    let mut names = HashSet::new();
    let mut rules = Vec::with_capacity(spec.rules.len());
    for (index, rule) in spec.rules.iter().enumerate() {
        let read = Reader { index: index.to_string(), subject, report }.rule(rule);
        if !names.insert(read.name.clone()) {
            let path = ["spec", "rules", &index.to_string(), "name"];
            let message = format!("two rules are called {:?}", read.name);
            invalid(report, subject, &path, message, "give each a name of its own");
        }
        rules.push(read);
    }
    if rules.is_empty() {
        let remedy = "it has no effect; write what it limits";
        let message = "it has no rules".to_owned();
        report.warning(subject, &["spec", "rules"], "no-effect", message, remedy);
    }
    let read = model::RateLimitPolicy {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        selector: labels(spec.selector.as_ref()),
        shadow: spec.shadow,
        rules,
    };
    Placed::new(read, subject)
}

/// Reads one rule.
struct Reader<'a> {
    index: String,
    subject: &'a Subject<'a>,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn rule(mut self, rule: &Rule) -> LimitRule {
        let matches = authorization::Rule {
            from: rule.from.clone(),
            to: rule.to.clone(),
            when: rule.when.clone(),
        };
        let index = self.index.parse().unwrap_or_default();
        let when = authorization::Reader::new(index, self.subject, self.report).rule(&matches);
        let limits = Limits {
            requests: self.rate("requests", rule.requests.as_ref()),
            connections: self.rate("connections", rule.connections.as_ref()),
            body: rule.max_body_bytes,
            key: rule.key.iter().filter_map(|text| self.key(text)).collect(),
            max_keys: self.max_keys(rule.max_keys),
            answer: self.answer(&rule.answer),
        };
        self.check(&when, &limits);
        LimitRule { name: self.name(rule.name.as_deref()), when, limits }
    }

    fn check(&mut self, when: &model::Rule, limits: &Limits) {
        if limits.requests.is_none() && limits.connections.is_none() && limits.body.is_none() {
            let remedy = "write requests, connections or maxBodyBytes";
            self.invalid("requests", "limits nothing", remedy);
        }
        if limits.connections.is_some()
            && (when.looks_at_requests() || limits.key.iter().any(LimitKey::is_of_request))
        {
            let what = "limits connections by what only their requests have";
            self.invalid("connections", what, "limit requests, or write a rule of its own");
        }
    }

    fn name(&mut self, name: Option<&str>) -> String {
        let Some(name) = name else { return self.index.clone() };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_name) {
            let what = format!("has name {name:?}");
            self.invalid("name", &what, "write up to 63 letters, digits, '-', '_' and '.'");
        }
        name.to_owned()
    }

    fn rate(&mut self, field: &str, amount: Option<&Amount>) -> Option<Rate> {
        let amount = amount?;
        let period = duration(&amount.per).filter(|per| (FINEST..=LONGEST).contains(per));
        let count = NonZeroU32::new(amount.count);
        let burst = NonZeroU32::new(amount.burst.unwrap_or(amount.count));
        let (Some(per), Some(count), Some(burst)) = (period, count, burst) else {
            let what = format!(
                "has {field}: {} per {:?}, burst {:?}",
                amount.count, amount.per, amount.burst
            );
            self.invalid(field, &what, "write numbers above 0, and a period of up to 24h");
            return None;
        };
        let interval = per / count.get();
        if interval < FINEST {
            self.invalid(field, "allows more than a million a second", "leave it out");
        }
        if interval.saturating_mul(burst.get()) > LONGEST_REFILL {
            self.invalid(field, "has a burst that is saved up for over a year", "allow less");
        }
        Some(Rate { count, per, burst })
    }

    fn key(&mut self, text: &str) -> Option<LimitKey> {
        let name = |prefix: &str| in_brackets(text.strip_prefix(prefix)?);
        let read = match text {
            "pod" => Some(LimitKey::Pod),
            "source.principal" => Some(LimitKey::SourcePrincipal),
            "source.namespace" => Some(LimitKey::SourceNamespace),
            "source.ip" => Some(LimitKey::SourceAddress),
            "remote.ip" => Some(LimitKey::RemoteAddress),
            "request.method" => Some(LimitKey::Method),
            "request.host" => Some(LimitKey::Host),
            "request.path" => Some(LimitKey::Path),
            _ => None,
        };
        let read = read.or_else(|| match name("request.headers").as_deref() {
            Some([header]) => {
                let header = HeaderName::try_from(header.as_str()).ok()?;
                Some(LimitKey::Header(header.as_str().to_owned()))
            }
            _ => None,
        });
        let read = read.or_else(|| name("request.auth.claims").map(LimitKey::Claim));
        if read.is_none() {
            let what = format!("has key {text:?}, which nobody knows");
            self.invalid("key", &what, "see docs/reference/limits-and-overload.md");
        }
        read
    }

    fn max_keys(&mut self, number: Option<usize>) -> usize {
        let number = number.unwrap_or(MAX_KEYS);
        if !(LEAST_KEYS..=MOST_KEYS).contains(&number) {
            let what = format!("has maxKeys {number}");
            self.invalid("maxKeys", &what, "write a number from 2 to 1000000");
        }
        number.clamp(LEAST_KEYS, MOST_KEYS)
    }

    fn answer(&mut self, answer: &Answer) -> LimitAnswer {
        let default = LimitAnswer::default();
        let status = answer.status.unwrap_or(default.status);
        if !(400..=599).contains(&status) {
            let what = format!("answers with status {status}");
            self.invalid("answer", &what, "write one of 400 to 599");
        }
        let body = answer.body.clone().unwrap_or(default.body);
        if body.len() > MAX_TEXT {
            self.invalid("answer", "answers with more than 4096 bytes", "write less");
        }
        LimitAnswer {
            status,
            body,
            exhausted: matches!(answer.grpc_status, GrpcStatus::ResourceExhausted),
            headers: match answer.headers {
                Headers::Refused => LimitHeaders::Refused,
                Headers::Always => LimitHeaders::Always,
                Headers::Never => LimitHeaders::Never,
            },
        }
    }

    fn invalid(&mut self, field: &str, what: &str, remedy: &str) {
        let path = ["spec", "rules", &self.index, field];
        let message = format!("rules[{}] {what}", self.index);
        invalid(self.report, self.subject, &path, message, remedy);
    }
}

#[cfg(test)]
mod tests;
