//! What stands in the pinned maps, entry by entry, in words. Reads the pins and takes nothing over, so that it can be
//! asked where no agent runs, too.

use std::path::{Path, PathBuf};

use aya::maps::{MapError, lpm_trie::Key};
use serde::{Deserialize, Serialize};
use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, GateKey, LocalTuple, OriginalDst, OriginalDstKey,
    Pod, PolicyKey, PolicyVerdict, PortKey, Service, ServiceKey, Settings, WorkloadEntry,
};

use crate::{DatapathError, bpffs::PinDir, open, words::Words};

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapContents {
    /// Name of the map.
    pub name: String,
    /// Entries that fit.
    pub max_entries: u32,
    /// Entries in use, those included that are not shown.
    pub used: usize,
    /// As many of them as were asked for, sorted.
    pub entries: Vec<MapEntry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapEntry {
    /// What is looked up.
    pub key: String,
    /// What is found.
    pub value: String,
}

/// Maps that can be read, in the order in which programs ask them.
pub const READABLE_MAPS: [&str; 13] = [
    "SETTINGS",
    "PODS",
    "WORKLOADS",
    "POLICY",
    "LISTENING",
    "PROBE_PORTS",
    "SERVICES",
    "BACKENDS",
    "BLOCKS",
    "ORIGINAL_DST",
    "LOCAL_TUPLES",
    "DELIVERIES",
    "GATE_MARKS",
];

impl MapContents {
    /// Reads one of [`READABLE_MAPS`] below a pin directory, at most `limit` entries of it.
    ///
    /// # Errors
    /// Where there is no such map, or it cannot be read.
    pub fn read(pin_dir: &Path, name: &str, limit: usize) -> Result<Self, DatapathError> {
        let Some(name) = READABLE_MAPS.into_iter().find(|known| *known == name) else {
            return Err(DatapathError::NoSuchMap(name.to_owned()));
        };
        let asked = Asked { maps: PinDir::below(pin_dir).maps, name, limit };
        match name {
            "SETTINGS" => asked.settings(),
            "PODS" => asked.hash::<u64, Pod>(|cookie| format!("netns {cookie}")),
            "WORKLOADS" => asked.hash::<Addr, WorkloadEntry>(Words::words),
            "POLICY" => asked.hash::<PolicyKey, PolicyVerdict>(Words::words),
            "LISTENING" => asked.hash::<PortKey, u64>(Words::words),
            "PROBE_PORTS" => asked.hash::<PortKey, u32>(Words::words),
            "SERVICES" => asked.hash::<ServiceKey, Service>(Words::words),
            "BACKENDS" => asked.hash::<BackendKey, Backend>(Words::words),
            "BLOCKS" => asked.blocks(),
            "ORIGINAL_DST" => asked.hash::<OriginalDstKey, OriginalDst>(Words::words),
            "GATE_MARKS" => asked.hash::<GateKey, u32>(Words::words),
            _ => asked.hash::<LocalTuple, u64>(Words::words),
        }
    }
}

/// Where maps are pinned, which is meant, and how much of it.
struct Asked {
    maps: PathBuf,
    name: &'static str,
    limit: usize,
}

impl Asked {
    fn hash<K: aya::Pod, V: aya::Pod + Words>(
        &self,
        key: impl Fn(&K) -> String,
    ) -> Result<MapContents, DatapathError> {
        let opened = open::hash::<K, V>(&self.maps, self.name)?;
        self.collect(opened.max_entries, opened.map.iter(), key)
    }

    fn blocks(&self) -> Result<MapContents, DatapathError> {
        let opened = open::trie::<BlockKey, Block>(&self.maps, self.name)?;
        let key = |key: &Key<BlockKey>| (key.prefix_len(), key.data()).words();
        self.collect(opened.max_entries, opened.map.iter(), key)
    }

    fn settings(&self) -> Result<MapContents, DatapathError> {
        let opened = open::array::<Settings>(&self.maps, self.name)?;
        let settings = opened.map.get(&0, 0).map_err(DatapathError::map("read", self.name))?;
        let value = if settings.strict_unknown != 0 { "yes" } else { "no" };
        let key = "strict for unknown clients".to_owned();
        let entries = vec![MapEntry { key, value: value.to_owned() }];
        let (name, max_entries) = (self.name.to_owned(), opened.max_entries);
        Ok(MapContents { name, max_entries, used: 1, entries })
    }

    /// While others write, the kernel may begin anew; it is not followed for ever.
    fn collect<K, V: Words>(
        &self,
        max_entries: u32,
        found: impl Iterator<Item = Result<(K, V), MapError>>,
        key: impl Fn(&K) -> String,
    ) -> Result<MapContents, DatapathError> {
        let mut entries = Vec::new();
        let mut used = 0;
        for pair in found.take(max_entries as usize * 2) {
            let (found, value) = pair.map_err(DatapathError::map("read", self.name))?;
            used += 1;
            if entries.len() < self.limit {
                entries.push(MapEntry { key: key(&found), value: value.words() });
            }
        }
        entries.sort();
        Ok(MapContents { name: self.name.to_owned(), max_entries, used, entries })
    }
}
