//! Everything that may be distributed, what of it has changed when, and what is the same for all who get it.
//!
//! Every change has a number. Who has all up to a number needs the objects with a higher one, and of what is gone
//! the names; nothing is kept for anybody in particular.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use prost::Message;
use serde_json::Value;

use super::{
    audience::Audience,
    frames,
    proto::{DeltaDiscoveryResponse, Object, Resource, resource::Any},
    scope::Places,
};

/// The one type of resources.
pub(super) const TYPE_URL: &str = "type.googleapis.com/undermesh.distribution.v1.Object";
/// Names of what is gone that are kept for whoever has not been told.
const MAX_GONE: usize = 50_000;
/// Objects that are compressed together, in bytes before that.
const BLOCK: usize = 4 << 20;
/// Bytes of a version: enough that nobody finds two objects with the same.
const VERSION_BYTES: usize = 12;

/// A kind and a namespace.
pub(super) type GroupKey = (&'static str, Arc<str>);

/// An object as it is.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) kind: &'static str,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) version: String,
    pub(super) audience: Audience,
    /// The number of the change that has made it so.
    pub(super) seq: u64,
    /// The number of the change that has made it for these, if it has been for others.
    pub(super) audience_since: u64,
    raw: Arc<[u8]>,
    packed: OnceLock<Bytes>,
}

/// What was there.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) audience: Audience,
    pub(super) audience_since: u64,
    seq: u64,
}

/// Objects of one kind and namespace.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) records: BTreeMap<Arc<str>, Arc<Record>>,
    whole: OnceLock<Arc<Whole>>,
}

/// All objects of a group, as they are at one time.
#[derive(Debug)]
pub(super) struct Whole {
    records: Vec<Arc<Record>>,
    blocks: OnceLock<Vec<Block>>,
}

/// Objects that are compressed together.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) packed: Bytes,
    /// Bytes before compression.
    pub(super) size: usize,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// The number of the last change.
    seq: u64,
    groups: BTreeMap<GroupKey, Group>,
    gone: HashMap<(GroupKey, Arc<str>), Gone>,
    /// The last change of each object, there or gone.
    journal: BTreeMap<u64, (GroupKey, Arc<str>)>,
    /// What was gone at this number or before is forgotten.
    forgotten: u64,
    places: Places,
}

impl Catalogue {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn len(&self) -> usize {
        self.groups.values().map(|group| group.records.len()).sum()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&GroupKey, &Group)> {
        self.groups.iter()
    }

    /// Whether everything that has changed since is still known.
    pub(super) fn remembers(&self, seq: u64) -> bool {
        seq >= self.forgotten
    }

    /// What has changed since, in order.
    pub(super) fn since(&self, seq: u64) -> impl Iterator<Item = Change<'_>> {
        self.journal.range(seq + 1..).filter_map(|(_, (group, name))| {
            let there = self.groups.get(group).and_then(|group| group.records.get(name));
            match there {
                Some(record) => Some(Change::There(record)),
                None => {
                    let gone = self.gone.get(&(group.clone(), Arc::clone(name)))?;
                    Some(Change::Gone(group, name, gone))
                }
            }
        })
    }

    /// Takes an object in; false where it is there already, as it is.
    pub(super) fn put(&mut self, kind: &'static str, object: &Value) -> bool {
        let (namespace, name) = name_of(object);
        let raw: Arc<[u8]> = object.to_string().into_bytes().into();
        let version = version(&raw);
        let key: GroupKey = (kind, namespace.into());
        let former = self.groups.get(&key).and_then(|group| group.records.get(name)).cloned();
        if former.as_ref().is_some_and(|former| former.version == version) {
            return false;
        }
        let audience = Audience::of(kind, object);
        let seq = self.next();
        self.places.note(kind, namespace, name, Some(object), seq);
        let name: Arc<str> = former.as_ref().map_or_else(|| name.into(), |it| Arc::clone(&it.name));
        let was_gone = self.gone.remove(&(key.clone(), Arc::clone(&name)));
        let earlier = former.as_ref().map(|former| former.seq);
        if let Some(earlier) = earlier.or(was_gone.as_ref().map(|gone| gone.seq)) {
            self.journal.remove(&earlier);
        }
        let audience_since = match (&former, &was_gone) {
            (Some(former), _) if former.audience == audience => former.audience_since,
            // Nobody has seen it.
            (None, None) => 0,
            _ => seq,
        };
        let record = Arc::new(Record {
            kind,
            namespace: Arc::clone(&key.1),
            name: Arc::clone(&name),
            version,
            audience,
            seq,
            audience_since,
            raw,
            packed: OnceLock::new(),
        });
        let group = self.groups.entry(key.clone()).or_default();
        group.records.insert(Arc::clone(&name), record);
        group.whole = OnceLock::new();
        self.journal.insert(seq, (key, name));
        true
    }

    /// Takes an object out; false where it is not there.
    pub(super) fn remove(&mut self, kind: &'static str, namespace: &str, name: &str) -> bool {
        let key: GroupKey = (kind, namespace.into());
        let Some(group) = self.groups.get_mut(&key) else { return false };
        let Some(record) = group.records.remove(name) else { return false };
        group.whole = OnceLock::new();
        if group.records.is_empty() {
            self.groups.remove(&key);
        }
        let seq = self.next();
        self.places.note(kind, namespace, name, None, seq);
        self.journal.remove(&record.seq);
        self.journal.insert(seq, (key.clone(), Arc::clone(&record.name)));
        let (audience, audience_since) = (record.audience.clone(), record.audience_since);
        let gone = Gone { audience, audience_since, seq };
        self.gone.insert((key, Arc::clone(&record.name)), gone);
        if self.gone.len() > MAX_GONE {
            self.forget();
        }
        true
    }

    /// Forgets the older half of what is gone.
    fn forget(&mut self) {
        let mut numbers: Vec<u64> = self.gone.values().map(|gone| gone.seq).collect();
        numbers.sort_unstable();
        let Some(last) = numbers.get(numbers.len() / 2).copied() else { return };
        self.forgotten = last;
        self.gone.retain(|_, gone| gone.seq > last);
        numbers.iter().take_while(|seq| **seq <= last).for_each(|seq| {
            self.journal.remove(seq);
        });
    }

    fn next(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

/// What has become of an object.
pub(super) enum Change<'a> {
    There(&'a Arc<Record>),
    Gone(&'a GroupKey, &'a Arc<str>, &'a Gone),
}

impl Group {
    /// All of it, the same for everybody until it changes.
    pub(super) fn whole(&self) -> Arc<Whole> {
        let whole = self.whole.get_or_init(|| {
            let records = self.records.values().cloned().collect();
            Arc::new(Whole { records, blocks: OnceLock::new() })
        });
        Arc::clone(whole)
    }
}

impl Whole {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// All of it, compressed. Takes its time where nobody has asked before.
    pub(super) fn blocks(&self) -> &[Block] {
        self.blocks.get_or_init(|| {
            let (mut blocks, mut part, mut resources) = (Vec::new(), Vec::new(), 0);
            for record in &self.records {
                record.encode(&mut part);
                resources += 1;
                if part.len() >= BLOCK {
                    blocks.push(Block::new(&part));
                    part.clear();
                    resources = 0;
                }
            }
            if resources > 0 {
                blocks.push(Block::new(&part));
            }
            blocks
        })
    }
}

impl Block {
    fn new(part: &[u8]) -> Self {
        Self { packed: frames::member(part), size: part.len() }
    }
}

impl Record {
    /// Alone, compressed.
    pub(super) fn packed(&self) -> Bytes {
        let packed = self.packed.get_or_init(|| {
            let mut part = Vec::new();
            self.encode(&mut part);
            frames::member(&part)
        });
        packed.clone()
    }

    /// Bytes before compression, nearly.
    pub(super) fn size(&self) -> usize {
        self.raw.len() + 256
    }

    pub(super) fn resource_name(&self) -> String {
        resource_name(self.kind, &self.namespace, &self.name)
    }

    /// As a part of a response.
    fn encode(&self, to: &mut Vec<u8>) {
        let json = Bytes::copy_from_slice(&self.raw);
        let object = Object { kind: self.kind.to_owned(), json };
        let any = Any { type_url: TYPE_URL.to_owned(), value: object.encode_to_vec().into() };
        let resource = Resource {
            name: self.resource_name(),
            version: self.version.clone(),
            resource: Some(any),
        };
        let part = DeltaDiscoveryResponse { resources: vec![resource], ..Default::default() };
        // A vector has room.
        let _ = part.encode(to);
    }
}

/// What a resource is called.
pub(super) fn resource_name(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

/// Namespace and name.
pub(super) fn name_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// The version of an object that reads so: the same for whoever computes it.
pub(super) fn version(raw: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, raw);
    digest.as_ref().iter().take(VERSION_BYTES).fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
