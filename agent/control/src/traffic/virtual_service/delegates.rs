//! Rules that end in another VirtualService, one without hosts. Each rule there becomes one here: it
//! is for what both match, and what it says itself holds before what the rule that leads to it says.

mod merge;

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::{
    NamespacedName,
    traffic::{HttpRule, RouteSet},
};

use super::{
    Draft,
    rules::{Reference, Rule},
};
use crate::{
    objects::Placed,
    report::{Report, Subject},
};

/// Matches that joining may add to one state: what many roots and delegates expand to is their
/// product.
const MAX_MATCHES: usize = 200_000;

/// The route sets of all VirtualServices that have hosts.
pub(crate) fn resolve(drafts: Vec<Placed<Draft>>, report: &mut Report) -> Vec<RouteSet> {
    let (delegates, roots): (Vec<_>, Vec<_>) =
        drafts.into_iter().partition(|draft| draft.value.set.parents.is_empty());
    let delegates: BTreeMap<_, _> =
        delegates.into_iter().map(|draft| (draft.name(), draft)).collect();
    let hosted: BTreeSet<_> = roots.iter().map(Placed::name).collect();
    let used = BTreeSet::new();
    let mut resolver =
        Resolver { delegates: &delegates, hosted, used, left: Some(MAX_MATCHES), report };
    let sets = roots.into_iter().map(|root| resolver.root(root)).collect();
    let used = resolver.used;
    for (name, unused) in delegates.iter().filter(|(name, _)| !used.contains(*name)) {
        let message = format!("has no hosts, and no VirtualService delegates to {name}");
        let remedy = "write hosts, or name it as delegate of another";
        report.warning(&unused.subject(), &[], "unused-delegate", message, remedy);
    }
    sets
}

struct Resolver<'a> {
    delegates: &'a BTreeMap<NamespacedName, Placed<Draft>>,
    /// VirtualServices with hosts, which nobody can delegate to.
    hosted: BTreeSet<NamespacedName>,
    used: BTreeSet<NamespacedName>,
    /// Matches that may still be added; `None` once there were too many.
    left: Option<usize>,
    report: &'a mut Report,
}

impl Resolver<'_> {
    fn root(&mut self, root: Placed<Draft>) -> RouteSet {
        let subject = root.subject();
        let Draft { mut set, http } = root.value;
        for Rule { read, delegate } in http {
            match delegate {
                None => set.http.push(read),
                Some(reference) => {
                    let subject =
                        Subject { position: reference.position.clone(), ..subject.clone() };
                    let rules = self.delegated(&subject, &read, &reference);
                    set.http.extend(rules);
                }
            }
        }
        set
    }

    fn delegated(
        &mut self,
        subject: &Subject<'_>,
        root: &HttpRule,
        reference: &Reference,
    ) -> Vec<HttpRule> {
        let to = &reference.to;
        let Some(delegate) = self.delegates.get(to) else {
            self.missing(subject, to);
            return Vec::new();
        };
        self.used.insert(to.clone());
        if !delegate.value.set.scope.includes(&subject.origin.namespace) {
            let message =
                format!("delegates to VirtualService {to}, which is not exported to here");
            let remedy = "name this namespace in the exportTo of the other";
            self.report.error(subject, &[], "unknown-delegate", message, remedy);
            return Vec::new();
        }
        if !self.has_room(subject, root, delegate) {
            return Vec::new();
        }
        let mut rules = Vec::with_capacity(delegate.value.http.len());
        for (index, rule) in delegate.value.http.iter().enumerate() {
            if let Some(merged) = merge::rule(root, &rule.read) {
                rules.push(merged);
            } else {
                self.conflict(subject, &format!("{to}, rule {index} ({:?})", rule.read.name));
            }
        }
        rules
    }

    fn has_room(
        &mut self,
        subject: &Subject<'_>,
        root: &HttpRule,
        delegate: &Placed<Draft>,
    ) -> bool {
        let alternatives = |rule: &HttpRule| rule.matches.len().max(1);
        let there: usize = delegate.value.http.iter().map(|rule| alternatives(&rule.read)).sum();
        // Said once; whatever comes after it is not joined either.
        let Some(left) = self.left else { return false };
        self.left = left.checked_sub(there.saturating_mul(alternatives(root)));
        if self.left.is_none() {
            let message = format!("delegates would add more than {MAX_MATCHES} matches");
            self.report.error(subject, &[], "too-many-matches", message, "delegate less");
        }
        self.left.is_some()
    }

    fn missing(&mut self, subject: &Subject<'_>, to: &NamespacedName) {
        let (message, remedy) = if self.hosted.contains(to) {
            let message = format!("delegates to VirtualService {to}, which has hosts");
            (message, "remove the hosts of the other, or write the route here")
        } else {
            let message = format!("delegates to VirtualService {to}, which does not exist");
            (message, "write it, without hosts, or correct the name")
        };
        self.report.error(subject, &[], "unknown-delegate", message, remedy);
    }

    fn conflict(&mut self, subject: &Subject<'_>, rule: &str) {
        let message =
            format!("delegates to VirtualService {rule}, whose match is outside of this one");
        let remedy = "the rule has no effect; let it match a part of what is matched here";
        self.report.warning(subject, &[], "conflicting-delegate", message, remedy);
    }
}
