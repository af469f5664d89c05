//! What somebody has to be told, who has something already.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    audience::{Seen, group_is_seen, is_seen},
    catalogue::{Catalogue, Change, Group, GroupKey, Record, Whole, resource_name},
    scope::Scope,
};

/// What somebody has.
#[derive(Debug)]
pub(super) enum Has {
    /// Nothing but what is named here, by name and version.
    These(HashMap<String, String>),
    /// All up to a change, of what this scope sees.
    UpTo { seq: u64, scope: Scope },
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// Whole groups.
    pub(super) groups: Vec<Arc<Whole>>,
    /// Single objects.
    pub(super) records: Vec<Arc<Record>>,
    /// Names of what is there no more, or not to be known.
    pub(super) removed: Vec<String>,
}

impl Diff {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.records.is_empty() && self.removed.is_empty()
    }

    /// Resources in it.
    pub(super) fn resources(&self) -> usize {
        self.records.len() + self.groups.iter().map(|group| group.len()).sum::<usize>()
    }
}

/// From what somebody has to what there is now.
pub(super) fn diff(catalogue: &Catalogue, has: Has, now: &Scope) -> Diff {
    match has {
        Has::These(versions) => named(catalogue, versions, now),
        Has::UpTo { seq, scope } => {
            let mut diff = changed(catalogue, seq, &scope, now);
            if scope != *now {
                moved(catalogue, seq, &scope, now, &mut diff);
            }
            diff
        }
    }
}

/// Against a list of what there is.
fn named(catalogue: &Catalogue, mut versions: HashMap<String, String>, now: &Scope) -> Diff {
    let mut diff = Diff::default();
    let known: HashSet<(String, String)> =
        versions.keys().filter_map(|name| group_of(name)).collect();
    for (key, group) in catalogue.groups() {
        let seen = group_is_seen(now, key.0, &key.1);
        let any_known = known.contains(&(key.0.to_owned(), key.1.to_string()));
        match seen {
            Seen::None => continue,
            Seen::All if !any_known => {
                diff.groups.push(group.whole());
                continue;
            }
            Seen::All | Seen::Some => {}
        }
        for record in group.records.values() {
            if !is_seen(now, record.kind, &record.namespace, &record.audience) {
                continue;
            }
            let theirs = versions.remove(&record.resource_name());
            if theirs.as_ref() != Some(&record.version) {
                diff.records.push(Arc::clone(record));
            }
        }
    }
    diff.removed.extend(versions.into_keys());
    diff
}

/// Kind and namespace of a resource.
fn group_of(name: &str) -> Option<(String, String)> {
    let mut parts = name.splitn(3, '/');
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

/// What has changed. What somebody does not see and has not seen either is not told.
fn changed(catalogue: &Catalogue, seq: u64, then: &Scope, now: &Scope) -> Diff {
    let mut diff = Diff::default();
    for change in catalogue.since(seq) {
        match change {
            Change::There(record) => {
                let (kind, namespace) = (record.kind, &record.namespace);
                if is_seen(now, kind, namespace, &record.audience) {
                    diff.records.push(Arc::clone(record));
                } else if may_have_been_seen(
                    then,
                    (kind, namespace),
                    &record.audience,
                    record.audience_since > seq,
                ) {
                    diff.removed.push(record.resource_name());
                }
            }
            Change::Gone((kind, namespace), name, gone) => {
                let group = (*kind, &**namespace);
                if may_have_been_seen(then, group, &gone.audience, gone.audience_since > seq) {
                    diff.removed.push(resource_name(kind, namespace, name));
                }
            }
        }
    }
    diff
}

fn may_have_been_seen(
    then: &Scope,
    (kind, namespace): (&str, &str),
    audience: &super::audience::Audience,
    is_new: bool,
) -> bool {
    match group_is_seen(then, kind, namespace) {
        Seen::None => false,
        _ if is_new => true,
        _ => is_seen(then, kind, namespace, audience),
    }
}

/// What has not changed, and is seen now and was not, or was and is not.
fn moved(catalogue: &Catalogue, seq: u64, then: &Scope, now: &Scope, diff: &mut Diff) {
    for (key, group) in catalogue.groups() {
        let was = group_is_seen(then, key.0, &key.1);
        let is = group_is_seen(now, key.0, &key.1);
        match (was, is) {
            (Seen::All, Seen::All) | (Seen::None, Seen::None) => {}
            (Seen::None, Seen::All) if is_old(group, seq) => {
                diff.groups.push(group.whole());
            }
            _ => one_by_one(group, key, seq, then, now, diff),
        }
    }
}

/// Whether nothing of it is among what has changed.
fn is_old(group: &Group, seq: u64) -> bool {
    group.records.values().all(|record| record.seq <= seq)
}

fn one_by_one(group: &Group, key: &GroupKey, seq: u64, then: &Scope, now: &Scope, diff: &mut Diff) {
    for record in group.records.values().filter(|record| record.seq <= seq) {
        let sees = |scope: &Scope| is_seen(scope, key.0, &key.1, &record.audience);
        match (sees(then), sees(now)) {
            (false, true) => diff.records.push(Arc::clone(record)),
            (true, false) => diff.removed.push(record.resource_name()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
