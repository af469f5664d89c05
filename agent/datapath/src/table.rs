//! One BPF map that is kept equal to a desired set of entries.

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key};

use crate::DatapathError;

/// A map, what it is known to hold, and how it is called.
pub(crate) struct Table<K, V, M = HashMap<MapData, K, V>> {
    name: &'static str,
    setting: &'static str,
    max_entries: u32,
    map: M,
    actual: BTreeMap<K, V>,
}

/// A BPF map with keys and values.
pub(crate) trait Store<K, V> {
    /// Everything that it holds.
    fn entries(&self) -> Result<BTreeMap<K, V>, MapError>;
    /// Inserts or replaces.
    fn insert(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    /// Removes.
    fn remove(&mut self, key: &K) -> Result<(), MapError>;
}

impl<K: Pod + Ord, V: Pod> Store<K, V> for HashMap<MapData, K, V> {
    fn entries(&self) -> Result<BTreeMap<K, V>, MapError> {
        self.iter().collect()
    }

    fn insert(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        HashMap::insert(self, key, value, 0)
    }

    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        HashMap::remove(self, key)
    }
}

/// Keys are the length of the prefix in bits, and what it is a prefix of.
impl<K: Pod + Ord, V: Pod> Store<(u32, K), V> for LpmTrie<MapData, K, V> {
    fn entries(&self) -> Result<BTreeMap<(u32, K), V>, MapError> {
        let entry = |(key, value): (Key<K>, V)| ((key.prefix_len(), key.data()), value);
        self.iter().map(|found| found.map(entry)).collect()
    }

    fn insert(&mut self, (length, key): &(u32, K), value: &V) -> Result<(), MapError> {
        LpmTrie::insert(self, &Key::new(*length, *key), value, 0)
    }

    fn remove(&mut self, (length, key): &(u32, K)) -> Result<(), MapError> {
        LpmTrie::remove(self, &Key::new(*length, *key))
    }
}

impl<K, V, M> Table<K, V, M>
where
    K: Copy + Ord + std::fmt::Debug,
    V: Copy + PartialEq,
    M: Store<K, V>,
{
    /// Takes a map over, with whatever an earlier agent has left in it.
    pub(crate) fn adopt(
        name: &'static str,
        setting: &'static str,
        max_entries: u32,
        map: M,
    ) -> Result<Self, DatapathError> {
        let mut table = Self { name, setting, max_entries, map, actual: BTreeMap::new() };
        table.read_again()?;
        Ok(table)
    }

    /// Forgets what the map was known to hold, and reads it: another agent may have written to it.
    pub(crate) fn read_again(&mut self) -> Result<(), DatapathError> {
        self.actual = self.map.entries().map_err(DatapathError::map("read", self.name))?;
        Ok(())
    }

    /// What the map holds.
    pub(crate) fn actual(&self) -> &BTreeMap<K, V> {
        &self.actual
    }

    /// Inserts or replaces one entry; `describe` names it should there be no room.
    pub(crate) fn put(
        &mut self,
        key: K,
        value: V,
        describe: impl FnOnce(&K) -> String,
    ) -> Result<(), DatapathError> {
        if self.actual.get(&key) == Some(&value) {
            return Ok(());
        }
        let refused =
            DatapathError::write(self.name, self.max_entries, self.setting, || describe(&key));
        self.map.insert(&key, &value).map_err(refused)?;
        self.actual.insert(key, value);
        Ok(())
    }

    /// Removes one entry.
    pub(crate) fn remove(&mut self, key: &K) -> Result<(), DatapathError> {
        if self.actual.contains_key(key) {
            match self.map.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(DatapathError::map("delete from", self.name)(error)),
            }
            self.actual.remove(key);
        }
        Ok(())
    }

    /// Inserts and replaces what `desired` has beyond the map.
    pub(crate) fn add(
        &mut self,
        desired: &BTreeMap<K, V>,
        describe: impl Fn(&K) -> String,
    ) -> Result<usize, DatapathError> {
        let changed: Vec<_> = desired
            .iter()
            .filter(|(key, value)| self.actual.get(key) != Some(value))
            .map(|(key, value)| (*key, *value))
            .collect();
        let count = changed.len();
        for (key, value) in changed {
            self.put(key, value, &describe)?;
        }
        Ok(count)
    }

    /// Deletes what the map has beyond `desired`.
    pub(crate) fn prune(&mut self, desired: &BTreeMap<K, V>) -> Result<usize, DatapathError> {
        let stale: Vec<K> =
            self.actual.keys().filter(|key| !desired.contains_key(key)).copied().collect();
        for key in &stale {
            self.remove(key)?;
        }
        Ok(stale.len())
    }
}
