//! The objects, their history, and what one revision of them was.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{answer::Refusal, resource::Resource};

/// Events that are kept; older ones are compacted away, as etcd does it.
const HISTORY: usize = 20_000;

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `plural.group`.
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) key: Key,
    /// What was there before; `None` where nothing was.
    pub(super) before: Option<Arc<Value>>,
    /// What is there now; `None` where it was deleted.
    pub(super) after: Option<Arc<Value>>,
    /// What a watch shows of a deletion: the last state, with the revision of the deletion.
    pub(super) last: Arc<Value>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) revision: u64,
    /// Events up to this revision are forgotten.
    pub(super) compacted: u64,
    pub(super) resources: Vec<Resource>,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Event>,
    uids: u64,
}

impl Store {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The resource at this address, and whether it is served in this version.
    pub(super) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.resources.iter().find(|one| {
            one.group == group
                && one.plural == plural
                && one.versions.iter().any(|it| it == version)
        })
    }

    /// The resource that objects of this kind and version belong to.
    pub(super) fn resource_of(&self, object: &Value) -> Option<&Resource> {
        let api_version = object["apiVersion"].as_str()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.resources.iter().find(|one| {
            one.group == group
                && object["kind"] == *one.kind
                && one.versions.iter().any(|it| it == version)
        })
    }

    /// Objects of a resource in the order of their keys, as they were at a revision.
    ///
    /// # Errors
    /// Where that has been compacted away.
    pub(super) fn list_at(
        &self,
        resource: &str,
        revision: u64,
    ) -> Result<Vec<(Key, Arc<Value>)>, Refusal> {
        if revision < self.compacted {
            return Err(Refusal::expired(revision, self.compacted));
        }
        let of = |key: &Key| key.resource == resource;
        let now = self.objects.iter().filter(|(key, _)| of(key));
        let mut found: BTreeMap<Key, Arc<Value>> =
            now.map(|(key, value)| (key.clone(), Arc::clone(value))).collect();
        for event in self.history.iter().rev().take_while(|event| event.revision > revision) {
            if of(&event.key) {
                match &event.before {
                    Some(before) => found.insert(event.key.clone(), Arc::clone(before)),
                    None => found.remove(&event.key),
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Changes after a revision.
    ///
    /// # Errors
    /// Where some of them have been compacted away.
    pub(super) fn since(&self, resource: &str, revision: u64) -> Result<Vec<Event>, Refusal> {
        if revision < self.compacted {
            return Err(Refusal::expired(revision, self.compacted));
        }
        let from = self.history.partition_point(|event| event.revision <= revision);
        let events = self.history.iter().skip(from);
        Ok(events.filter(|event| event.key.resource == resource).cloned().collect())
    }

    /// Forgets all events up to now.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// Stores an object that has passed all checks, and gives it its revision.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        let before = self.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.revision.to_string());
        if metadata["uid"].as_str().is_none_or(str::is_empty) {
            self.uids += 1;
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(now());
        }
        let object = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&object));
        let (after, last) = (Some(Arc::clone(&object)), Arc::clone(&object));
        self.note(Event { revision: self.revision, key, before, after, last });
        object
    }

    /// Removes an object, and returns its last state.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&before);
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let last = Arc::new(last);
        self.note(Event {
            revision: self.revision,
            key: key.clone(),
            before: Some(before),
            after: None,
            last: Arc::clone(&last),
        });
        Some(last)
    }

    /// Keys of all objects of a resource, or of all in a namespace.
    pub(super) fn keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        self.objects.keys().filter(|key| wanted(key)).cloned().collect()
    }

    fn note(&mut self, event: Event) {
        self.history.push_back(event);
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.revision;
        }
    }
}

/// The time as Kubernetes writes it.
pub(super) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    timestamp(seconds)
}

/// Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { resource: "pods".into(), namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn a_list_can_be_read_as_it_was_until_it_is_compacted() {
        let mut store = Store::default();
        store.put(key("a"), json!({"metadata": {}, "n": 1}));
        store.put(key("b"), json!({"metadata": {}}));
        let then = store.revision;
        store.put(key("a"), json!({"metadata": {}, "n": 2}));
        store.remove(&key("b"));
        store.put(key("c"), json!({"metadata": {}}));
        let names = |revision| {
            let listed = store.list_at("pods", revision).unwrap();
            listed.iter().map(|(key, _)| key.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(then), ["a", "b"]);
        assert_eq!(names(store.revision), ["a", "c"]);
        assert_eq!(store.list_at("pods", then).unwrap()[0].1["n"], 1);
        assert_eq!(store.since("pods", then).unwrap().len(), 3);
        store.compact();
        assert!(store.list_at("pods", then).is_err() && store.since("pods", then).is_err());
        assert_eq!(store.list_at("pods", store.revision).unwrap().len(), 2);
    }

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_735_689_599), "2024-12-31T23:59:59Z");
    }
}
