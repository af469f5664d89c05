//! Changes of headers, in the types of the proxy.

use http::{HeaderName, HeaderValue, header::HOST};
use undermesh_model::{
    Severity,
    traffic::{HeaderOps, RouteSet},
};

use super::Workshop;
use crate::traffic::HeaderEdits;

impl Workshop<'_, '_> {
    /// Changes of headers. What is no header is reported and left out.
    pub(super) fn edits(&mut self, set: &RouteSet, ops: &HeaderOps) -> HeaderEdits {
        HeaderEdits {
            request_remove: self.names(set, &ops.request_remove),
            request_set: self.pairs(set, &ops.request_set),
            request_add: self.pairs(set, &ops.request_add),
            response_remove: self.names(set, &ops.response_remove),
            response_set: self.pairs(set, &ops.response_set),
            response_add: self.pairs(set, &ops.response_add),
        }
    }

    /// Names to remove. The authority cannot be: Istio leaves it out, too.
    fn names(&mut self, set: &RouteSet, names: &[String]) -> Vec<HeaderName> {
        let names = names.iter().filter_map(|name| self.name(set, name));
        names.filter(|name| *name != HOST).collect()
    }

    fn pairs(
        &mut self,
        set: &RouteSet,
        all: &[(String, String)],
    ) -> Vec<(HeaderName, HeaderValue)> {
        let pair = |(name, value): &(String, String)| {
            Some((self.name(set, name)?, self.value(set, name, value)?))
        };
        all.iter().filter_map(pair).collect()
    }

    fn name(&mut self, set: &RouteSet, name: &str) -> Option<HeaderName> {
        if name.eq_ignore_ascii_case(":authority") {
            return Some(HOST);
        }
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        if parsed.is_none() {
            self.unusable(set, &format!("{name:?} is not the name of a header"));
        }
        parsed
    }

    pub(super) fn value(&mut self, set: &RouteSet, name: &str, value: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_str(value).ok();
        if parsed.is_none() {
            // Not the value itself: it may be a secret.
            self.unusable(set, &format!("the value for header {name:?} cannot stand in a header"));
        }
        parsed
    }

    fn unusable(&mut self, set: &RouteSet, why: &str) {
        let message = format!("a change of headers has no effect: {why}");
        let remedy = "correct the name or the value";
        self.findings.tell(Severity::Error, &set.origin, "unusable-header", message, remedy);
    }
}
