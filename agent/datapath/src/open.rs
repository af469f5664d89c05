//! Pinned maps, opened by their names: which kind of map each is stands here alone. Nothing is taken over.

use std::path::Path;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapInfo, SockHash};

use crate::DatapathError;

/// Maps that forget what was used longest ago.
const RECENT: [&str; 3] = ["ORIGINAL_DST", "LOCAL_TUPLES", "DELIVERIES"];

/// An open map, and how many entries fit.
pub(crate) struct Opened<M> {
    pub(crate) map: M,
    pub(crate) max_entries: u32,
}

/// Opens a hash map below a directory of pins.
pub(crate) fn hash<K: aya::Pod, V: aya::Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<Opened<HashMap<MapData, K, V>>, DatapathError> {
    let kind = if RECENT.contains(&name) { Map::LruHashMap } else { Map::HashMap };
    open(maps, name, |data| HashMap::try_from(kind(data)))
}

/// Opens a trie.
pub(crate) fn trie<K: aya::Pod, V: aya::Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<Opened<LpmTrie<MapData, K, V>>, DatapathError> {
    open(maps, name, |data| LpmTrie::try_from(Map::LpmTrie(data)))
}

/// Opens an array.
pub(crate) fn array<V: aya::Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<Opened<Array<MapData, V>>, DatapathError> {
    open(maps, name, |data| Array::try_from(Map::Array(data)))
}

/// Opens a map of sockets.
pub(crate) fn sockets<K: aya::Pod>(
    maps: &Path,
    name: &'static str,
) -> Result<Opened<SockHash<MapData, K>>, DatapathError> {
    open(maps, name, |data| SockHash::try_from(Map::SockHash(data)))
}

fn open<M, E: std::error::Error>(
    maps: &Path,
    name: &'static str,
    kind: impl FnOnce(MapData) -> Result<M, E>,
) -> Result<Opened<M>, DatapathError> {
    let data = MapData::from_pin(maps.join(name)).map_err(DatapathError::map("open", name))?;
    let max_entries = data.info().map_or(0, |info: MapInfo| info.max_entries());
    let map = kind(data).map_err(DatapathError::map("open", name))?;
    Ok(Opened { map, max_entries })
}
