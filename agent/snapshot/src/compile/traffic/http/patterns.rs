//! Regular expressions that rewrite paths and name origins. Whoever reads the objects knows most of RE2;
//! what is none after all is told here, and not found out request by request.

use undermesh_model::{
    Severity,
    traffic::{Cors, HttpRule, PathRewrite, RouteSet, TextPattern},
};

use super::Workshop;
use crate::traffic::Substitution;

impl Workshop<'_, '_> {
    /// What becomes of the path. A rewrite that cannot be made is reported and left out.
    pub(super) fn path(&mut self, set: &RouteSet, rule: &HttpRule) -> Option<PathRewrite> {
        let path = rule.rewrite.path.clone()?;
        let PathRewrite::Regex { pattern, replacement } = &path else { return Some(path) };
        match Substitution::new(pattern, replacement) {
            Ok(_) => Some(path),
            Err(error) => {
                self.unusable_pattern(set, &format!("paths are not rewritten: {error}"));
                None
            }
        }
    }

    /// Answers to browsers' questions. An origin that cannot be matched is reported, and nobody's.
    pub(super) fn cors(&mut self, set: &RouteSet, rule: &HttpRule) -> Option<Cors> {
        let mut cors = rule.cors.clone()?;
        cors.origins.0.retain(|origin| {
            let TextPattern::Regex(pattern) = origin else { return true };
            let error = Substitution::new(pattern, "").err();
            if let Some(error) = &error {
                self.unusable_pattern(set, &format!("an origin is not allowed: {error}"));
            }
            error.is_none()
        });
        Some(cors)
    }

    fn unusable_pattern(&mut self, set: &RouteSet, what: &str) {
        let remedy = "write an expression of RE2";
        let message = what.to_owned();
        self.findings.tell(Severity::Error, &set.origin, "unusable-pattern", message, remedy);
    }
}
