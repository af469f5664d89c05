//! What stands in the pinned maps, entry by entry, in words. Reads the pins and takes nothing over, so that it can be
//! asked where no agent runs, too.

use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, MapInfo, lpm_trie::Key};
use serde::Serialize;
use undermesh_ebpf_common::{
    Addr, Backend, BackendKey, Block, BlockKey, GateKey, LocalTuple, OriginalDst, OriginalDstKey,
    Pod, PolicyKey, PolicyVerdict, PortKey, Service, ServiceKey, Settings, WorkloadEntry,
};

use crate::{DatapathError, bpffs::PinDir, words::Words};

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapContents {
    /// Name of the map.
    pub name: &'static str,
    /// Entries that fit.
    pub max_entries: u32,
    /// Entries in use, those included that are not shown.
    pub used: usize,
    /// As many of them as were asked for, sorted.
    pub entries: Vec<MapEntry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
        let pin = Pinned { path: PinDir::below(pin_dir).maps.join(name), name, limit };
        match name {
            "SETTINGS" => pin.settings(),
            "PODS" => pin.hash::<u64, Pod>(|cookie| format!("netns {cookie}")),
            "WORKLOADS" => pin.hash::<Addr, WorkloadEntry>(Words::words),
            "POLICY" => pin.hash::<PolicyKey, PolicyVerdict>(Words::words),
            "LISTENING" => pin.hash::<PortKey, u64>(Words::words),
            "PROBE_PORTS" => pin.hash::<PortKey, u32>(Words::words),
            "SERVICES" => pin.hash::<ServiceKey, Service>(Words::words),
            "BACKENDS" => pin.hash::<BackendKey, Backend>(Words::words),
            "BLOCKS" => pin.blocks(),
            "ORIGINAL_DST" => pin.recent::<OriginalDstKey, OriginalDst>(),
            "GATE_MARKS" => pin.hash::<GateKey, u32>(Words::words),
            _ => pin.recent::<LocalTuple, u64>(),
        }
    }
}

/// A map's pin, and how much of it is wanted.
struct Pinned {
    path: PathBuf,
    name: &'static str,
    limit: usize,
}

impl Pinned {
    fn open(&self) -> Result<(MapData, u32), DatapathError> {
        let map = MapData::from_pin(&self.path).map_err(DatapathError::map("open", self.name))?;
        let max_entries = map.info().map_or(0, |info: MapInfo| info.max_entries());
        Ok((map, max_entries))
    }

    fn hash<K: aya::Pod, V: aya::Pod + Words>(
        &self,
        key: impl Fn(&K) -> String,
    ) -> Result<MapContents, DatapathError> {
        let (map, max_entries) = self.open()?;
        let map: HashMap<_, K, V> =
            HashMap::try_from(Map::HashMap(map)).map_err(DatapathError::map("open", self.name))?;
        self.collect(max_entries, map.iter(), key)
    }

    fn recent<K: aya::Pod + Words, V: aya::Pod + Words>(
        &self,
    ) -> Result<MapContents, DatapathError> {
        let (map, max_entries) = self.open()?;
        let map: HashMap<_, K, V> = HashMap::try_from(Map::LruHashMap(map))
            .map_err(DatapathError::map("open", self.name))?;
        self.collect(max_entries, map.iter(), Words::words)
    }

    fn blocks(&self) -> Result<MapContents, DatapathError> {
        let (map, max_entries) = self.open()?;
        let map: LpmTrie<_, BlockKey, Block> =
            LpmTrie::try_from(Map::LpmTrie(map)).map_err(DatapathError::map("open", self.name))?;
        let key = |key: &Key<BlockKey>| (key.prefix_len(), key.data()).words();
        self.collect(max_entries, map.iter(), key)
    }

    fn settings(&self) -> Result<MapContents, DatapathError> {
        let (map, max_entries) = self.open()?;
        let map: Array<_, Settings> =
            Array::try_from(Map::Array(map)).map_err(DatapathError::map("open", self.name))?;
        let settings = map.get(&0, 0).map_err(DatapathError::map("read", self.name))?;
        let value = if settings.strict_unknown != 0 { "yes" } else { "no" };
        let key = "strict for unknown clients".to_owned();
        let entries = vec![MapEntry { key, value: value.to_owned() }];
        Ok(MapContents { name: self.name, max_entries, used: 1, entries })
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
        Ok(MapContents { name: self.name, max_entries, used, entries })
    }
}
