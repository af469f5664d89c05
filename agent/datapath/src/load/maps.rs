//! Maps of a loaded object, as the types that they are used by.

use std::fmt::Debug;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapInfo},
};
use undermesh_ebpf_common::{Block, BlockKey};

use super::missing;
use crate::{DatapathError, sizes::setting_of, table::Table, tables::Blocks};

/// A map of the object, which is there once.
pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    ebpf.take_map(name).ok_or_else(|| missing(name))
}

/// A hash map of the object.
pub(super) fn hash<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, DatapathError> {
    HashMap::try_from(take(ebpf, name)?).map_err(DatapathError::map("open", name))
}

/// A configuration map, with the entries that it has already.
pub(super) fn adopt<K, V>(ebpf: &mut Ebpf, name: &'static str) -> Result<Table<K, V>, DatapathError>
where
    K: Pod + Ord + Debug,
    V: Pod + PartialEq,
{
    let (map, max_entries) = sized(ebpf, name)?;
    Table::adopt(name, setting_of(name), max_entries, map)
}

/// The same for the map of address blocks.
pub(super) fn adopt_blocks(ebpf: &mut Ebpf) -> Result<Blocks, DatapathError> {
    let name = "BLOCKS";
    let map = take(ebpf, name)?;
    let max_entries = match &map {
        Map::LpmTrie(data) => data.info().map_or(0, |info: MapInfo| info.max_entries()),
        _ => 0,
    };
    let map: LpmTrie<MapData, BlockKey, Block> =
        LpmTrie::try_from(map).map_err(DatapathError::map("open", name))?;
    Table::adopt(name, setting_of(name), max_entries, map)
}

/// A hash map of the object, and how many entries it takes.
pub(super) fn sized<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<(HashMap<MapData, K, V>, u32), DatapathError> {
    let map = take(ebpf, name)?;
    let max_entries = match &map {
        Map::HashMap(data) => data.info().map_or(0, |info: MapInfo| info.max_entries()),
        _ => 0,
    };
    let map = HashMap::try_from(map).map_err(DatapathError::map("open", name))?;
    Ok((map, max_entries))
}
